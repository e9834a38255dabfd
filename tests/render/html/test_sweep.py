"""The page of causal sweeps: its file, and what it shows in a real browser."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from classlens.render.html.sweep import write_sweep_page
from classlens.text import visible
from tests.refusals import refused
from tests.render.browser import quiet
from tests.render.pages import decimal
from tests.render.sweeps import Record, SweepSizes, make_pairs, make_sweep

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Open = Callable[[SweepSizes], tuple["Page", Record]]
HEADS = SweepSizes(images=("cat.png", "second.png", "third.png"), equal=(1,))
TOKENS = SweepSizes(over="tokens", blocks=(1, 4, 5), prefix=("cls", "reg0"), cls_factor=20, images=("cat.png", "b.png"))
MANY = SweepSizes(over="tokens", grid=(14, 14), blocks=range(12))
HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    '"><b id="injected">\'&amp;',
    "猫 \u202e",
    "{{script}} ${1} {block}",
)


@pytest.fixture
def show_sweep(page: Page, tmp_path: Path) -> Open:
    def opened(sizes: SweepSizes) -> tuple[Page, Record]:
        record = make_sweep(sizes)
        write_sweep_page(record, make_pairs(sizes), tmp_path / "report.html")
        page.goto((tmp_path / "report.html").as_uri())
        page.wait_for_selector("html[data-ready=true]")
        return page, record

    return opened


def painted(page: Page, cells: str) -> list[tuple[float, ...]]:
    """The color that each cell is given, as red, green, blue and opacity."""
    found = page.eval_on_selector_all(cells, "cells => cells.map(cell => cell.style.getPropertyValue('--color'))")
    return [tuple(float(part) for part in re.findall(r"[\d.]+", color)) for color in found]


def assert_diverging(shown: list[tuple[float, ...]], values: Any, largest: float) -> None:
    """Vermillion above zero, blue below it, as opaque as the value is large; no color at zero."""
    flat = np.ravel(values)
    assert len(shown) == flat.size
    for (*rgb, alpha), value in zip(shown, flat, strict=True):
        assert alpha == pytest.approx(0.72 * min(abs(value) / largest, 1), abs=0.001)
        assert rgb == ([213, 94, 0] if value >= 0 else [0, 114, 178])


def tip(page: Page) -> list[str]:
    return page.inner_text("#tip").splitlines()


def assert_tip(page: Page, name: str, image: Record, row: int, place: int) -> None:
    shown, effect, patched = tip(page)
    assert shown == name
    assert decimal(effect.split()[1]) == pytest.approx(image["effect"][row][place], rel=5.1e-6)
    percent = decimal(effect.split("(")[1].rstrip("%)"))
    assert percent == pytest.approx(100 * image["effect"][row][place], abs=0.501)
    assert decimal(patched.split()[2]) == pytest.approx(image["patched"][row][place], rel=5.1e-6)


# --- the file


def test_one_file_that_loads_nothing(tmp_path: Path) -> None:
    record, pairs = make_sweep(HEADS), make_pairs(HEADS)
    write_sweep_page(record, pairs, tmp_path / "new" / "report.html")
    text = (tmp_path / "new" / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"https?://[^\"'\s]*", text) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"{{\w+}}", text)
    assert text.count("data:image/png") == 4, "three clean pictures, and the corrupt one once"
    refused(lambda: write_sweep_page(record, pairs[:2], tmp_path / "x"), "2 pairs of pictures were given for 3 images")
    refused(lambda: write_sweep_page({**record, "images": []}, [], tmp_path / "x"), "holds no images")
    broken = copy.deepcopy(record)
    broken["images"][2]["patched"][0][0] = float("nan")
    refused(lambda: write_sweep_page(broken, pairs, tmp_path / "x"), "image 'third.png' holds a number that is not")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_page_of_units_holds_the_largest_alone(tmp_path: Path) -> None:
    sizes = SweepSizes(over="units", count=3072, blocks=range(12))
    write_sweep_page(make_sweep(sizes), make_pairs(sizes), tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 100_000


# --- the page in a browser


@pytest.mark.browser
def test_the_pair_and_its_decisions(show_sweep: Open) -> None:
    page, record = show_sweep(HEADS)
    image = record["images"][0]
    assert page.inner_text("h1") == "What the heads of builtin:cifar10 do to its decision"
    assert page.inner_text("#largest-title") == "Largest effects"
    assert page.is_hidden("#agreement")
    for which, name, chance in (("clean", "cat.png", "81%"), ("corrupt", "dog.png", "10%")):
        lines = page.locator(f"#pair [data-which={which}] figcaption span").all_inner_texts()
        assert lines[:2] == [f"{which.capitalize()}: {name}", f"Prediction: cat {chance}"]
        assert lines[2].startswith("Log odds of cat: ")
        assert decimal(lines[2].rsplit(" ", 1)[1]) == pytest.approx(image[which], rel=0.005)
    gray = page.evaluate("""async () => {
        const image = document.querySelector('#pair [data-which=clean] img');
        await image.decode();
        const canvas = document.createElement('canvas');
        canvas.getContext('2d').drawImage(image, 0, 0);
        return [...canvas.getContext('2d').getImageData(3, 3, 1, 1).data];
    }""")
    assert gray == [0, 90, 20, 255]
    question = page.inner_text("#question")
    assert question.startswith("The corrupt image runs with one head at a time from the clean one.")
    low, high = re.findall(r"(?:at|to) (−?[\d.]+), that of the", question)
    assert decimal(low) == pytest.approx(image["corrupt"], rel=0.005)
    assert decimal(high) == pytest.approx(image["clean"], rel=0.005)


@pytest.mark.browser
def test_estimates_are_called_estimates(show_sweep: Open) -> None:
    images, equal = ("cat.png", "b.png"), (1,)
    for over, steps, agreement in (("heads", 5, {"rank_correlation": 0.8437}), ("tokens", 1, None)):
        page, record = show_sweep(
            SweepSizes(over=over, images=images, equal=equal, steps=steps, agreement=agreement, blocks=range(4))
        )
        method = f"estimate (attribution patching, {'5 steps' if steps == 5 else '1 step'})"
        assert page.inner_text("h1") == f"What the {over} of builtin:cifar10 do to its decision: {method}"
        assert page.title() == f"classlens sweep: 2 images, builtin:cifar10, {method}"
        assert page.inner_text("#heat-title") == f"E{method[1:]} by block and {over[:-1]}"
        assert page.inner_text("#largest-title") == "Largest estimates"
        assert page.inner_text("#question").startswith(f"Estimates for the corrupt image with one {over[:-1]} at a")
        page.locator("#heat .tile").first.hover()
        image = record["images"][0]
        assert_tip(page, "Head 0.0" if over == "heads" else "[CLS] before block 0", image, 0, 0)
        assert tip(page)[1].startswith("estimate ")
        assert tip(page)[2].endswith(" estimated with this part patched")
        if agreement is None:
            assert page.is_hidden("#agreement")
        else:
            words = "Agreement with the exact sweep: Spearman's rank correlation 0.844 over 16 heads."
            assert page.inner_text("#agreement") == words
            assert page.is_visible("#agreement")


@pytest.mark.browser
def test_heatmap_of_heads(show_sweep: Open) -> None:
    page, record = show_sweep(HEADS)
    image = record["images"][0]
    effects = np.array(image["effect"])
    largest = np.abs(effects).max()
    assert_diverging(painted(page, "#heat .tile"), effects, largest)
    written = [decimal(text) for text in page.locator("#heat .tile").all_inner_texts()]
    np.testing.assert_allclose(written, 100 * effects.ravel(), atol=0.501)
    ends = page.locator("#heat-legend .scale span").all_inner_texts()
    assert [decimal(ends[0].rstrip("%")), decimal(ends[2].lstrip("+").rstrip("%"))] == pytest.approx(
        [-100 * largest, 100 * largest], abs=0.501
    )
    assert page.is_hidden("#maps-card")
    assert page.is_hidden("#bars-card")
    assert page.is_hidden("#heat-scale")

    page.locator("#heat .tile").nth(9).hover()
    assert_tip(page, "Head 2.1", image, 2, 1)
    page.locator("#largest .link").nth(2).focus()
    page.keyboard.press("Enter")
    third = image["largest"][2]
    assert tip(page)[0] == f"Head {third['block']}.{third['part']}"
    assert page.locator("#largest li").all_inner_texts() == [f"{part['words']}." for part in image["largest"][:10]]


@pytest.mark.browser
def test_the_keyboard_reaches_every_cell(show_sweep: Open) -> None:
    page, record = show_sweep(HEADS)
    image = record["images"][0]
    page.locator("#largest .link").last.focus()
    page.keyboard.press("Tab")
    assert_tip(page, "Head 0.0", image, 0, 0)
    for key, name in (
        ("ArrowDown", "Head 1.0"),
        ("ArrowRight", "Head 1.1"),
        ("End", "Head 1.3"),
        ("ArrowRight", "Head 1.3"),
        ("ArrowUp", "Head 0.3"),
        ("ArrowUp", "Head 0.3"),
        ("Home", "Head 0.0"),
        ("ArrowLeft", "Head 0.0"),
    ):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith(f"{name}: ")
    assert_tip(page, "Head 0.0", image, 0, 0)
    page.keyboard.press("Escape")
    assert page.is_hidden("#tip")
    assert page.locator("#heat [tabindex='0']").count() == 1


@pytest.mark.browser
def test_choice_of_an_image_and_a_pair_without_difference(show_sweep: Open) -> None:
    page, record = show_sweep(HEADS)
    assert page.is_hidden("#equal")
    page.click("#image-choice [data-image='1']")
    words = page.inner_text("#equal")
    assert words.startswith("Clean and corrupt image have the same log odds of cat, ")
    assert words.endswith("so effects are not defined.")
    assert "100%" not in page.inner_text("#question")
    assert page.locator("#heat .tile").all_inner_texts() == ["–"] * 24
    assert page.locator("#heat .tile.undefined").count() == 24
    assert page.is_hidden("#largest-card")
    assert page.is_hidden("#heat-legend")
    page.locator("#heat .tile").first.hover()
    assert tip(page)[1] == "effect not defined"
    page.click("#image-choice [data-image='2']")
    assert page.url.endswith("#image-2")
    page.reload()
    third = np.array(record["images"][2]["effect"])
    assert_diverging(painted(page, "#heat .tile"), third, np.abs(third).max())
    assert page.is_hidden("#equal")
    assert page.is_visible("#largest-card")
    assert page.locator("#image-choice [aria-pressed=true]").inner_text() == "third.png"


@pytest.mark.browser
def test_maps_of_tokens(show_sweep: Open) -> None:
    page, record = show_sweep(TOKENS)
    image = record["images"][0]
    effects = np.array(image["effect"])
    ofimage = np.abs(effects[:, 2:]).max()
    assert np.abs(effects[:, 0]).max() > ofimage
    assert page.locator("#maps figcaption").all_inner_texts() == ["block 1", "block 4", "block 5"]
    for row in range(3):
        figure = f"#maps figure:nth-child({row + 1})"
        assert_diverging(painted(page, f"{figure} .cells .cell"), effects[row, 2:], ofimage)
        assert_diverging(painted(page, f"{figure} .specials .cell"), effects[row, :2], ofimage)
        specials = page.locator(f"{figure} .specials .cell").all_inner_texts()
        assert [text.split()[0] for text in specials] == ["[CLS]", "[REG0]"]
        numbers = [decimal(text.split()[1].rstrip("%")) for text in specials]
        np.testing.assert_allclose(numbers, 100 * effects[row, :2], atol=0.501)
    assert_diverging(painted(page, "#heat .tile"), effects, ofimage)
    ends = page.locator("#maps-legend .scale span").all_inner_texts()
    assert ends[0].startswith("≤ −")
    assert ends[2].startswith("≥ +")
    page.locator("#maps figure:nth-child(2) .cells .cell").nth(7).hover()
    assert_tip(page, "Row 1, column 2 before block 4", image, 1, 9)
    page.locator("#maps figure:nth-child(3) .specials .cell").nth(1).hover()
    assert_tip(page, "[REG0] before block 5", image, 2, 1)
    # From the last row of the picture to the special tokens below it.
    page.locator("#maps figure:nth-child(3) .cells .cell").nth(13).focus()
    page.keyboard.press("ArrowDown")
    assert_tip(page, "[REG0] before block 5", image, 2, 1)

    page.check("#whole-scale")
    whole = np.abs(effects).max()
    assert_diverging(painted(page, "#heat .tile"), effects, whole)
    assert_diverging(painted(page, "#maps figure:nth-child(1) .cells .cell"), effects[0, 2:], whole)
    assert page.locator("#maps-legend .scale span").first.inner_text().startswith("−")


@pytest.mark.browser
def test_many_tokens_without_numbers(show_sweep: Open) -> None:
    page, record = show_sweep(MANY)
    effects = np.array(record["images"][0]["effect"])
    assert_diverging(painted(page, "#heat .tile"), effects, np.abs(effects[:, 1:]).max())
    assert set(page.locator("#heat .tile").all_inner_texts()) == {""}
    headers = page.locator("#heat [role=columnheader]").all_inner_texts()
    assert headers == ["block", "", *map(str, range(14))]
    page.locator("#heat .tile").nth(197 * 3 + 1 + 14 + 2).hover()
    assert_tip(page, "Row 1, column 2 before block 3", record["images"][0], 3, 17)
    # A cell far down that focus scrolls into view keeps its tip.
    page.set_viewport_size({"width": 390, "height": 500})
    page.evaluate("window.scrollTo(0, 0)")
    page.locator("#largest .link").first.click()
    page.wait_for_timeout(200)
    largest = record["images"][0]["largest"][0]
    row, place = largest["block"], largest["part"]
    assert tip(page)[0].endswith(f" before block {row}")
    assert page.evaluate("document.activeElement.dataset.at") == f"{row},{place}"
    tile, box = page.locator(":focus").bounding_box(), page.locator("#tip").bounding_box()
    assert tile is not None
    assert box is not None
    above, below = tile["y"] - box["y"] - box["height"], box["y"] - tile["y"] - tile["height"]
    assert min(abs(above), abs(below)) < 30


@pytest.mark.browser
def test_bars_of_units(show_sweep: Open) -> None:
    page, record = show_sweep(SweepSizes(over="units", count=64))
    largest = record["images"][0]["largest"]
    assert page.is_hidden("#heat-card")
    assert page.locator("#bars .label").all_inner_texts() == [part["name"] for part in largest]
    shares = page.eval_on_selector_all(
        "#bars .fill",
        "fills => fills.map(fill => {"
        " const [box, track] = [fill, fill.parentElement].map(element => element.getBoundingClientRect());"
        " const middle = track.left + track.width / 2;"
        " return (box.left + box.right - 2 * middle) / track.width; })",
    )
    expected = [part["effect"] / abs(largest[0]["effect"]) / 2 for part in largest]
    np.testing.assert_allclose(shares, expected, atol=0.01)
    assert "30 of 384 units" in page.inner_text("#bars-words")
    page.locator("#bars .bar").nth(3).hover()
    assert tip(page)[0] == f"Unit {largest[3]['block']}.{largest[3]['part']}"
    page.locator("#bars .bar").first.focus()
    page.keyboard.press("ArrowDown")
    assert tip(page)[0] == f"Unit {largest[1]['block']}.{largest[1]['part']}"


@pytest.mark.browser
@pytest.mark.parametrize("over", ["sublayers", "tokens"])
def test_hostile_names_are_shown_as_text(over: str, show_sweep: Open) -> None:
    sizes = SweepSizes(
        over=over, images=HOSTILE[:2], corrupt=HOSTILE[2], target=HOSTILE[3], name=HOSTILE[1], direction="noise"
    )
    page, _ = show_sweep(sizes)
    assert page.locator("#injected, img[onerror]").count() == 0
    assert page.inner_text("h1") == f"What the {over} of {HOSTILE[1]} do to its decision"
    assert page.title() == f"classlens sweep: 2 images, {HOSTILE[1]}"
    assert page.locator("#image-choice span").all_text_contents() == list(HOSTILE[:2])
    lines = page.locator("#pair [data-which=corrupt] figcaption span").all_inner_texts()
    assert lines[:2] == [f"Corrupt: {visible(HOSTILE[2])}", f"Prediction: {HOSTILE[3]} 10%"]
    page.locator("#heat .tile").first.hover()
    assert tip(page)[0] == ("Attention of block 0" if over == "sublayers" else "[CLS] before block 0")
    assert page.inner_text("#question").startswith("The clean image runs with one")


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 700, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_the_window_in_both_schemes(width: int, scheme: Any, browser: Browser, tmp_path: Path) -> None:
    long = "a_very_long_name_" * 9
    with quiet(browser, viewport={"width": width, "height": 900}, color_scheme=scheme) as page:
        for over in ("heads", "tokens", "units"):
            sizes = SweepSizes(
                over=over, images=(long, "b"), corrupt=long, target=long, name=long, count=24, grid=(14, 14)
            )
            write_sweep_page(make_sweep(sizes), make_pairs(sizes), tmp_path / "report.html")
            page.goto((tmp_path / "report.html").as_uri())
            page.wait_for_selector("html[data-ready=true]")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, over
            dark = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0] < 128")
            assert dark == (scheme == "dark")


@pytest.mark.browser
def test_numbers_on_cells_can_be_read(show_sweep: Open, tmp_path: Path) -> None:
    """The darkest colors of a cell have at least the contrast of 4.5 to its number, measured in pixels."""
    page, record = show_sweep(SweepSizes())
    effects = np.array(record["images"][0]["effect"]).ravel()
    for number in (int(effects.argmax()), int(effects.argmin())):
        page.locator("#heat .tile").nth(number).screenshot(path=tmp_path / "cell.png")
        with Image.open(tmp_path / "cell.png") as opened:
            colors = np.asarray(opened.convert("RGB"), dtype=float).reshape(-1, 3) / 255
        linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
        luminance = linear @ [0.2126, 0.7152, 0.0722]
        assert (np.median(luminance) + 0.05) / (luminance.min() + 0.05) > 4.5
