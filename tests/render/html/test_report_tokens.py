from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from classlens.render.html.report import write_report
from tests.render.browser import quiet
from tests.render.pages import (
    NO_CLS,
    REGISTERS,
    SMALL,
    THOUSAND,
    assert_inspector,
    assert_viridis,
    colors,
    marked,
    set_block,
)
from tests.render.records import CIFAR, Record, Sizes, make_pictures, make_record

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Open = Callable[[Sizes], tuple["Page", Record]]
pytestmark = pytest.mark.browser


@pytest.mark.parametrize(
    "sizes", [SMALL, REGISTERS, NO_CLS, THOUSAND], ids=["small", "registers", "no cls", "thousand"]
)
def test_color_by_rank_at_every_block_and_site(sizes: Sizes, show: Open) -> None:
    page, record = show(sizes)
    tokens = record["images"][0]["tokens"]
    assert page.input_value("#block") == str(sizes.blocks - 1)
    assert_viridis(colors(page), tokens["resid_post"]["rank"][-1], len(sizes.classes))
    for site in ("attn_out", "resid_post", "embed"):
        page.select_option("#site", site)
        for block in range(1 if site == "embed" else sizes.blocks):
            if site != "embed":
                set_block(page, block)
                assert page.inner_text("#block-value") == f"{block} of 0–{sizes.blocks - 1}"
            ranks = tokens[site]["rank"][block]
            assert_viridis(colors(page), ranks, len(sizes.classes))
            assert marked(page) == {token for token, rank in enumerate(ranks) if rank == 0}
            image = ranks[len(sizes.prefix) :]
            assert f"{image.count(0)} of {len(image)} image tokens" in page.inner_text("#summary")
    assert page.is_disabled("#block")


def test_color_by_norm_marks_outliers(show: Open) -> None:
    page, record = show(REGISTERS)
    page.check("#coloring input[value=norm]")
    for site, block in (("resid_post", 0), ("attn_out", 1), ("embed", 0)):
        page.select_option("#site", site)
        if site != "embed":
            set_block(page, block)
        norms, outlier = (np.array(record["images"][0]["norms"][site][name][block]) for name in ("norm", "outlier"))
        assert_viridis(colors(page), (1 - norms / norms.max()).tolist(), 1)
        assert marked(page) == set(np.flatnonzero(outlier))
        assert f"image tokens: {outlier.sum()} token" in page.inner_text("#legend")


@pytest.mark.parametrize("sizes", [SMALL, REGISTERS], ids=["small", "registers"])
def test_every_token_lies_where_it_is_in_the_picture(sizes: Sizes, show: Open) -> None:
    page, _ = show(sizes)
    boxes = """grid => {
        const frame = grid.querySelector('img').getBoundingClientRect();
        return [...grid.querySelectorAll('.cell')].map((cell) => {
            const box = cell.getBoundingClientRect();
            const center = [box.x + box.width / 2 - frame.x, box.y + box.height / 2 - frame.y];
            return [Number(cell.dataset.token), center[0] / frame.width, center[1] / frame.height];
        });
    }"""
    rows, columns = sizes.grid
    for grid in ("#token-grid", "#map-grid", "#source-grid"):
        found = {int(token): (x, y) for token, x, y in page.eval_on_selector(grid, boxes)}
        for row in range(rows):
            for column in range(columns):
                center = ((column + 0.5) / columns, (row + 0.5) / rows)
                assert found.pop(len(sizes.prefix) + row * columns + column) == pytest.approx(center, abs=0.01)
        # What remains are the prefix tokens, left of the picture and in order from top to bottom.
        assert list(found) == ([] if grid == "#source-grid" else list(range(len(sizes.prefix))))
        assert all(x < 0 for x, _ in found.values())
        assert [y for _, y in found.values()] == sorted(y for _, y in found.values())


def test_sites_have_plain_names(show: Open) -> None:
    page, _ = show(REGISTERS)
    assert page.locator("#site option").all_inner_texts() == [
        "before the first block (embed)",
        "what attention adds (attn_out)",
        "after attention (resid_mid)",
        "what the MLP adds (mlp_out)",
        "after the block (resid_post)",
    ]


@pytest.mark.parametrize("sizes", [SMALL, THOUSAND], ids=["small", "thousand"])
def test_color_by_top_class(sizes: Sizes, show: Open) -> None:
    page, record = show(sizes)
    by_rank = colors(page)
    page.check("#coloring input[value=top1]")
    first = len(sizes.prefix)
    set_block(page, 1)
    top = [classes[0] for classes in record["images"][0]["tokens"]["resid_post"]["top"][1]]
    legend = {}
    for row in page.locator("#legend li").all():
        name = row.locator("span").nth(1).inner_text()
        color = row.locator(".swatch").evaluate("swatch => getComputedStyle(swatch).backgroundColor")
        rgb = tuple(map(float, re.findall(r"\d+", color)))
        legend[re.sub(r" \(.*", "", name)] = (rgb, int(row.locator("b").inner_text()))
    assert len({color for color, _ in legend.values()}) == len(legend) == 8
    assert next(iter(legend)) == sizes.classes[sizes.target]
    shown = colors(page)
    for token, index in enumerate(top):
        name = sizes.classes[index]
        assert shown[token] == legend.get(name, legend["other"])[0], f"token {token}: {name}"
    for name, (_, count) in legend.items():
        if name != "other":
            assert count == sum(sizes.classes[index] == name for index in top[first:]), name
    assert sum(count for _, count in legend.values()) == len(top) - first
    assert shown != by_rank


def test_no_color_shows_the_bare_picture(show: Open) -> None:
    page, _ = show(SMALL)
    gray = "getComputedStyle(document.querySelector('#token-grid img')).filter"
    assert "grayscale" in page.evaluate(gray)
    page.check("#coloring input[value=none]")
    assert {color[-1] for color in colors(page).values()} == {0}
    assert marked(page) == set()
    assert page.evaluate(gray) == "none"


def test_strength_of_the_color(show: Open) -> None:
    page, _ = show(REGISTERS)
    opacity = "getComputedStyle(document.querySelector('#token-grid .cell'), '::before').opacity"
    before = float(page.evaluate(opacity))
    page.focus("#opacity")
    page.keyboard.press("ArrowLeft")
    assert float(page.evaluate(opacity)) == pytest.approx(before - 0.05)
    page.keyboard.press("Home")
    assert float(page.evaluate(opacity)) == 0


@pytest.mark.parametrize(
    ("size", "rendering"), [((24, 40), "pixelated"), ((128, 128), "auto")], ids=["few pixels", "many pixels"]
)
def test_picture_is_scaled_as_fits_its_size(size: tuple[int, int], rendering: str, show: Open) -> None:
    page, _ = show(Sizes(blocks=1, heads=1, grid=(2, 2), input_size=size))
    found = page.eval_on_selector(
        "#token-grid img", "i => [getComputedStyle(i).imageRendering, i.clientWidth / i.clientHeight, i.clientWidth]"
    )
    assert found[0] == rendering
    assert found[1] == pytest.approx(size[1] / size[0], rel=0.02)
    assert found[2] > 250


def test_hover_shows_a_token_and_click_holds_it(show: Open) -> None:
    page, record = show(SMALL)
    set_block(page, 3)
    page.hover("#token-grid [data-token='20']")
    assert_inspector(page, SMALL, record, 20, "resid_post", 3)
    # Image token 19 is in row 19 // 8 and column 19 % 8.
    assert page.inner_text("#inspector-title") == "Row 2, column 3"
    rank = record["images"][0]["tokens"]["resid_post"]["rank"][3][20]
    top = record["images"][0]["tokens"]["resid_post"]["top"][3][20][0]
    assert page.inner_text("#tip strong") == "Row 2, column 3"
    tip = page.inner_text("#tip")
    assert f"cat: rank {rank} of 10" in tip
    assert f"identifiability {1 - rank / 10:.2f}" in tip
    assert f"top class: {CIFAR[top]}" in tip

    page.click("#token-grid [data-token='20']")
    page.hover("#token-grid [data-token='45']")
    assert page.inner_text("#inspector-title") == "Row 2, column 3 (held)"
    assert_inspector(page, SMALL, record, 20, "resid_post", 3)
    assert page.inner_text("#tip strong") == "Row 5, column 4"
    page.select_option("#site", "mlp_out")
    assert_inspector(page, SMALL, record, 20, "mlp_out", 3)
    page.click("#unpin")
    page.hover("#token-grid [data-token='0']")
    assert page.inner_text("#inspector-title") == "[CLS] token"
    assert_inspector(page, SMALL, record, 0, "mlp_out", 3)
    page.mouse.move(2, 2)
    assert page.is_hidden("#tip")


def test_tokens_by_keyboard(show: Open) -> None:
    page, record = show(REGISTERS)
    page.locator("#opacity").focus()
    page.keyboard.press("Tab")
    # Three prefix tokens above one another, then a grid of 3 × 5.
    for key, title in [
        (None, "[CLS] token"), ("ArrowDown", "[REG0] token"), ("ArrowDown", "[REG1] token"),
        ("ArrowDown", "[REG1] token"), ("ArrowRight", "Row 0, column 0"),
        ("ArrowRight", "Row 0, column 1"), ("ArrowDown", "Row 1, column 1"),
        ("ArrowUp", "Row 0, column 1"), ("ArrowUp", "Row 0, column 1"), ("ArrowLeft", "Row 0, column 0"),
        ("ArrowDown", "Row 1, column 0"), ("ArrowLeft", "[REG1] token"),
    ]:  # fmt: skip
        if key:
            page.keyboard.press(key)
        assert page.inner_text("#inspector-title") == title
    assert_inspector(page, REGISTERS, record, 2, "resid_post", 2)
    page.keyboard.press("Enter")
    assert page.inner_text("#inspector-title") == "[REG1] token (held)"
    page.keyboard.press("Escape")
    assert page.inner_text("#inspector-title") == "[REG1] token"


def test_tapping_a_token_holds_it(browser: Browser, tmp_path: Path) -> None:
    record = make_record(REGISTERS)
    write_report(record, make_pictures(REGISTERS), tmp_path / "report.html")
    with quiet(browser, viewport={"width": 420, "height": 800}, has_touch=True, is_mobile=True) as page:
        page.goto((tmp_path / "report.html").as_uri())
        page.tap("#token-grid [data-token='7']")
        assert page.inner_text("#inspector-title") == "Row 0, column 4 (held)"
        assert_inspector(page, REGISTERS, record, 7, "resid_post", 2)


def test_block_numbers_in_the_table_lead_to_the_block(show: Open) -> None:
    page, record = show(SMALL)
    page.click("#token-classes tr[data-block='1'] button")
    assert page.input_value("#block") == "1"
    assert_viridis(colors(page), record["images"][0]["tokens"]["resid_post"]["rank"][1], 10)
    assert page.get_attribute("#evolution-now", "data-block") == "1"


def test_play_runs_through_the_blocks(show: Open) -> None:
    from playwright.sync_api import expect

    page, _ = show(NO_CLS)
    page.click("#play")
    assert page.input_value("#block") == "0"
    assert page.inner_text("#play") == "❚❚ Pause"
    expect(page.locator("#block")).to_have_value("3")
    expect(page.locator("#play")).to_have_text("▶ Play")


@pytest.mark.parametrize("sizes", [SMALL, NO_CLS], ids=["cls", "no cls"])
def test_evolution_shows_the_records_values(sizes: Sizes, show: Open) -> None:
    page, record = show(sizes)

    def points(kind: str) -> list[float]:
        drawn = page.eval_on_selector_all(
            f"#evolution-chart .point.{kind}",
            "all => all.map(p => p.getBBox()).map(b => b.y + b.height / 2)",
        )
        bottom, top = page.eval_on_selector_all(
            "#evolution-chart .rule", "all => [all[0].y1.baseVal.value, all[4].y1.baseVal.value]"
        )
        return [(bottom - y) / (bottom - top) for y in drawn]

    image = record["images"][0]
    assert points("image") == pytest.approx([one["identifiable"] for one in image["blocks"]], abs=1e-3)
    cls = [1 - one["cls_rank"] / 10 for one in image["blocks"] if one["cls_rank"] is not None]
    assert len(cls) == (0 if sizes is NO_CLS else sizes.blocks)
    assert points("cls") == pytest.approx(cls, abs=1e-3)
    ranks = [row[len(sizes.prefix) :] for row in image["tokens"]["resid_post"]["rank"]]
    assert points("mean") == pytest.approx([np.mean([1 - rank / 10 for rank in row]) for row in ranks], abs=1e-3)
    assert ("[CLS]" in page.inner_text("#evolution-legend")) == bool(cls)

    x = "now => now.x1.baseVal.value"
    last = page.eval_on_selector("#evolution-now", x)
    page.click("#evolution-chart .strip[data-block='0']")
    assert page.input_value("#block") == "0"
    assert page.eval_on_selector("#evolution-now", x) < last
