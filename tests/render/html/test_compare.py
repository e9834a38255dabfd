"""The page of a comparison: its file, and what it shows in a real browser."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest

from classlens.analysis.comparison.compare import Comparison, compare
from classlens.core.stats import Statistics
from classlens.render.comparison_record import Record, comparison_record
from classlens.render.html.explore.compare import SideLinks, compare_page
from classlens.text import visible
from tests.analysis.comparison.pairs import SideSpec, drawn_labels, write_side
from tests.render.browser import quiet
from tests.render.pages import decimal

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    '"><b id="injected">\'&amp;\n',
    "\u202e猫 عربى {{script}} ${1}",
    "a" * 300,
    "plain",
)
PHOTOS = 120


@dataclass(frozen=True)
class Case:
    comparison: Comparison
    record: Record
    file: Path


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("stores")
    labels = drawn_labels(PHOTOS, classes=HOSTILE)
    names = {0: HOSTILE[0], 1: HOSTILE[1], 2: HOSTILE[2]}
    spec = SideSpec(images=range(PHOTOS), labels=labels, classes=HOSTILE, names=names, model=HOSTILE[0])
    first = write_side(folder / "before.zarr", spec)
    other = SideSpec(images=range(PHOTOS), labels=labels, classes=HOSTILE, names=names, skill=0.3, model="b", seed=2)
    result = compare(first, write_side(folder / "after.zarr", other), statistics=Statistics(resamples=50))
    record = comparison_record(result)
    file = folder / "compare.html"
    file.write_text(compare_page(record, version="0.1.0"), encoding="utf-8")
    return Case(result, record, file)


def show(page: Page, case: Case, state: str = "") -> Page:
    page.goto("about:blank")
    page.goto(case.file.as_uri() + state)
    page.wait_for_selector("html[data-ready=true]")
    return page


def test_both_sides_are_shown(page: Page, case: Case) -> None:
    show(page, case)
    assert page.inner_text("#title") == f"{visible(HOSTILE[0])} and b"
    rows = page.locator("#summary tbody tr").all()
    table = case.comparison.summary.set_index("measure")
    assert [row.get_attribute("data-measure") for row in rows] == list(table.index)
    for row in rows:
        values = table.loc[str(row.get_attribute("data-measure"))]
        scale, rounding = (1, 0.0051) if row.get_attribute("data-measure") in ("entropy", "margin") else (100, 0.051)
        cells = row.locator("td").all_inner_texts()
        for cell, name in zip(cells, ("first", "second", "difference"), strict=True):
            number, ends = cell.split("\n")
            assert decimal(number.rstrip("%")) == pytest.approx(scale * values[name], abs=rounding)
            low, high = ends.replace("%", "").split(" to ")
            assert decimal(low) == pytest.approx(scale * values[f"{name}_low"], abs=rounding)
            assert decimal(high) == pytest.approx(scale * values[f"{name}_high"], abs=rounding)


def test_classes_have_both_shares_on_one_line(page: Page, case: Case) -> None:
    show(page, case)
    table = case.comparison.classes
    rows = page.locator(".dumbbell").all()
    assert [row.get_attribute("data-class") for row in rows] == [visible(name) for name in table["class_name"]]
    places = "row => ['first', 'second'].map(side => parseFloat(row.querySelector('.mark.' + side).style.left))"
    for row, values in zip(rows, table.to_dict("records"), strict=True):
        assert row.evaluate(places) == pytest.approx([100 * values["first"], 100 * values["second"]], abs=0.01)
        assert decimal(row.locator(".number").inner_text().split()[0]) == pytest.approx(
            100 * values["difference"], abs=0.051
        )
        assert f"{values['broken']} broken, {values['fixed']} fixed" in row.locator(".note").inner_text()
        assert ("sure" in str(row.locator(".number").get_attribute("class"))) == (values["p_adjusted"] < 0.05)
    page.locator("#class-order").select_option("gain")
    turned = [row.get_attribute("data-class") for row in page.locator(".dumbbell").all()]
    assert turned == [visible(name) for name in table["class_name"][::-1]]
    assert parse_qs(page.url.partition("#")[2]) == {"order": ["gain"]}


def test_flips_are_chosen_and_turned(page: Page, case: Case) -> None:
    show(page, case)
    flipped = case.comparison.images.query("kind != 'same'")
    broken = flipped[flipped["kind"] == "broken"]
    assert page.inner_text("#flip-count") == f"1 to 24 of {len(flipped)} images"
    first = flipped.iloc[0]
    card = page.locator(".flip").first.inner_text()
    assert visible(first["image"]) in card
    assert visible(first["prediction_second"]) in card
    page.get_by_role("button", name=re.compile("^broken")).click()
    assert page.inner_text("#flip-count") == f"1 to {min(24, len(broken))} of {len(broken)} images"
    page.get_by_role("button", name="next").click()
    assert page.inner_text("#flip-count").startswith("25 to ")
    assert page.locator(".flip").first.inner_text().count(visible(broken.iloc[24]["image"])) == 1

    label = broken["label"].iloc[0]
    index = case.record["class_names"].index(label)
    page.locator("#flip-label").select_option(str(index))
    of_label = broken[broken["label"] == label]
    assert page.inner_text("#flip-count").endswith(f" of {len(of_label)} images")
    pair = of_label[["prediction_first", "prediction_second"]].value_counts()
    value = "-".join(str(case.record["class_names"].index(name)) for name in pair.index[0])
    page.locator("#flip-pair").select_option(value)
    assert page.locator(".flip").count() == pair.iloc[0]
    assert parse_qs(page.url.partition("#")[2]) == {"kind": ["broken"], "label": [str(index)], "pair": [value]}
    page.reload()
    page.wait_for_selector("html[data-ready=true]")
    assert page.locator(".flip").count() == pair.iloc[0]


def test_a_class_leads_to_its_flips(page: Page, case: Case) -> None:
    show(page, case)
    name = case.comparison.classes["class_name"].iloc[0]
    page.locator(".dumbbell button").first.press("Enter")
    count = int((case.comparison.images.query("kind != 'same'")["label"] == name).sum())
    assert page.inner_text("#flip-count").endswith(f" of {count} images")


def test_an_address_that_makes_no_sense_is_left_out(page: Page, case: Case) -> None:
    show(page, case, "#kind=none&label=999999&pair=1-999999&page=999999&order=x&parts=%22%3E")
    total = sum(case.comparison.attrs[kind] for kind in ("broken", "fixed", "changed"))
    assert page.inner_text("#flip-count").endswith(f" of {total} images")
    assert page.locator(".dumbbell").count() == len(case.comparison.classes)


def test_the_trajectory_is_drawn(page: Page, case: Case) -> None:
    show(page, case)
    table = case.comparison.trajectory
    lines = page.locator("#trajectory .rule").evaluate_all(
        "lines => lines.map(line => Number(line.getAttribute('y1')))"
    )
    for side in ("first", "second"):
        points = page.locator(f"#trajectory .curve.{side}").get_attribute("points")
        shares = [(lines[0] - float(point.split(",")[1])) / (lines[0] - lines[-1]) for point in str(points).split()]
        assert shares == pytest.approx(table[side].tolist(), abs=1e-5)
    page.locator("#trajectory-card summary").click()
    assert page.locator("#trajectory-numbers tbody tr").count() == len(table)


def test_heads_are_colored_and_listed(page: Page, case: Case) -> None:
    show(page, case)
    table = case.comparison.heads
    largest = table["difference"].abs().max()
    for row in table.to_dict("records"):
        name = f"MLP {row['block']}" if row["head"] < 0 else f"Head {row['block']}.{row['head']}"
        tile = page.locator(f'#heads .tile[aria-label^="{name}: "]')
        assert decimal(str(tile.get_attribute("aria-label")).split(": ")[1]) == pytest.approx(
            row["difference"], abs=0.00051
        )
        *rgb, alpha = map(float, re.findall(r"[\d.]+", tile.evaluate("tile => tile.style.getPropertyValue('--color')")))
        assert alpha == pytest.approx(0.72 * abs(row["difference"]) / largest, abs=0.001)
        assert rgb == ([213, 94, 0] if row["difference"] > 0 else [0, 114, 178])
        assert ("unsure" in str(tile.get_attribute("class"))) == (row["p_adjusted"] >= 0.05)
    listed = "rows => rows.map(row => row.dataset.part)"
    by_change = table.reindex(table["difference"].abs().sort_values(ascending=False).index)
    keys = [f"{row.block}.{row.head}" for row in by_change.itertuples()]
    assert page.locator(".changes .bar").evaluate_all(listed) == keys[:12]
    page.get_by_role("button", name="effect", exact=True).click()
    keys = [f"{row.block}.{row.head}" for row in table.itertuples()]
    assert page.locator(".changes .bar").evaluate_all(listed) == keys[:12]
    page.locator("#heads .tile").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#tip").startswith("Head 0.1")


def test_names_do_nothing(page: Page, case: Case) -> None:
    show(page, case)
    assert page.locator("#injected, img").count() == 0
    text = case.file.read_text(encoding="utf-8")
    assert "img-src data:;" in text
    assert "<img" not in text.partition('id="comparison"')[2].partition("</script>")[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_the_page_fits_and_is_accessible(browser: Browser, case: Case, width: int, scheme: Any) -> None:
    with quiet(browser, viewport={"width": width, "height": 900}, color_scheme=scheme) as page:
        show(page, case)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        axe = find_spec("axe_core_python")
        if axe is None or axe.origin is None:
            pytest.skip("axe-core-python is not installed")
        page.evaluate(Path(axe.origin).with_name("axe.min.js").read_text(encoding="utf-8"))
        faults = page.evaluate("axe.run().then(result => result.violations)")
    serious = [
        (fault["id"], fault["nodes"][0]["html"][:200]) for fault in faults if fault["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_pages_of_a_site_show_photos_and_lead_to_them(case: Case) -> None:
    links = SideLinks("../s0/", None, [3], True), SideLinks("../s1/", [], None, False)
    site = '<script type="application/json" id="site-record">{}</script>'
    text = compare_page(case.record, version="0.1.0", links=links, site=site)
    assert "img-src &#x27;self&#x27; data: blob:" in text
    assert '"links":[{"folder":"../s0/","photos":null,"thumbs":[3],"heads":true},' in text
    assert site in text


def test_a_comparison_without_flips_or_labels(page: Page, tmp_path: Path) -> None:
    spec = SideSpec(images=range(8), labels=dict.fromkeys(range(8)), attribution=False, trajectory=False)
    store = write_side(tmp_path / "a.zarr", spec)
    record = comparison_record(compare(store, store, statistics=Statistics(resamples=5)))
    file = tmp_path / "compare.html"
    file.write_text(compare_page(record, version="0.1.0"), encoding="utf-8")
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-ready=true]")
    assert "No image flipped" in page.inner_text("#flips-card")
    assert "no image the same label" in page.inner_text("#classes-card")
    assert "no image the same label" in page.inner_text("#trajectory-card")
    assert "has no attribution" in page.inner_text("#heads-card")
