from __future__ import annotations

import base64
import re
import zlib
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

import classlens
from classlens import Inspection
from classlens.render.attention_record import _record
from classlens.render.notebook import inspection as subject
from classlens.render.notebook.reduction import reductions
from classlens.text import visible
from tests.render.browser import quiet
from tests.render.notebook.hosts import HOSTILE, elements, show
from tests.render.pages import SMALL, assert_inspector
from tests.render.records import Record, Sizes, make_pictures, make_record

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Frame, Page

# ViT-B/16 on ImageNet.
LARGE = Sizes(
    blocks=12,
    heads=12,
    classes=[f"class {i}" for i in range(1000)],
    target=281,
    grid=(14, 14),
    input_size=(224, 224),
    others=(1, 5, 7, 8),
)


@pytest.fixture(scope="module")
def large() -> str:
    """The page of a record as large as that of ViT-B/16, with attention of every query and a picture of noise."""
    random = np.random.default_rng(0)
    record = make_record(LARGE)
    weights = random.dirichlet(np.full(197, 0.1), (12, 12, 197))
    tokens = classlens.load("builtin:photos").view.tokens((224, 224))
    record["images"][0]["attention"] = _record(weights, np.arange(197), tokens, 6)
    picture = Image.fromarray(random.integers(0, 256, (224, 224, 3), np.uint8))
    return Inspection(record, [picture])._repr_html_()


def left_out(html: str) -> str:
    found = re.search(r'"left_out":"(.*?)"', unescape(html))
    assert found is not None
    return found[1]


def test_a_large_model_takes_less_than_a_megabyte(large: str) -> None:
    assert 600_000 < len(large.encode()) < 1_000_000
    words = left_out(large)
    assert words.startswith("Left out to fit a notebook: attention of every head; maps of the ")
    assert words.endswith("inspection.write(folder) writes all of it.")


def test_a_photo_by_the_built_in_model(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    lens = classlens.load("builtin:photos")
    inspection = lens.inspect(random.integers(0, 256, (300, 400, 3), np.uint8))
    html = inspection._repr_html_()
    assert len(html.encode()) < 1_000_000
    assert "attention of " in left_out(html)
    # The file is whole.
    page = inspection.write(tmp_path / "report").read_text(encoding="utf-8")
    assert '"left_out":""' in page
    assert len(page) > len(html) + 400_000


def test_nothing_is_left_out_where_all_fits() -> None:
    html = Inspection(make_record(SMALL), make_pictures(SMALL))._repr_html_()
    assert left_out(html) == ""
    assert "The first" not in html


def test_more_images_than_a_notebook_shows() -> None:
    sizes = Sizes(images=[f"{number}.png" for number in range(6)])
    html = Inspection(make_record(sizes), make_pictures(sizes))._repr_html_()
    assert "The first 4 of 6 images. " in html
    assert 'id="image-3"' in unescape(html)
    assert 'id="image-4"' not in unescape(html)


def test_a_page_that_fits_no_notebook_becomes_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "LARGEST", 50_000)
    record = make_record(Sizes(classes=HOSTILE, target=0, others=(1,), images=(HOSTILE[1],)))
    html = Inspection(record, make_pictures(SMALL)[:1])._repr_html_()
    root = elements(html)
    assert root.find(".//iframe") is None
    text = " ".join(root.itertext())
    assert "too large for a notebook" in text
    for guess in record["images"][0]["predictions"]:
        assert f"{visible(guess['name'])} " in text


def test_reductions_leave_out_parts_and_change_none() -> None:
    trace = classlens.load("builtin:cifar10").trace(
        torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    )
    record = classlens.load("builtin:cifar10").inspect(trace._pixels, against=7).record
    steps = list(reductions(record))
    assert steps[0] == (record, [])
    # The attention of [CLS] alone, from the weights themselves.
    smaller, words = steps[1]
    assert words == ["attention of tokens that the head of the model does not pool"]
    packed = smaller["images"][0]["attention"]
    weights = trace.attention(queries="cls").values[0]
    levels = np.frombuffer(zlib.decompress(base64.b64decode(packed["deflate"])), np.uint8).reshape(packed["shape"])
    assert packed["queries"] == [0]
    assert levels.shape == weights.shape == (6, 4, 1, 65)
    np.testing.assert_array_equal(levels, np.round(15 * np.sqrt(weights / weights.max(-1, keepdims=True))))
    np.testing.assert_allclose(packed["largest"], weights.max(-1), rtol=1e-6)
    np.testing.assert_allclose(packed["entropy"], -(weights * np.log(weights)).sum(-1), rtol=1e-4)
    assert {**smaller, "images": [{**smaller["images"][0], "attention": None}]} == steps[2][0]
    assert steps[2][1] == ["attention of every head"]
    # Then classes, the rival never.
    classes = [[one["target"]["index"] for one in step["images"][0]["others"]] for step, _ in steps[2:]]
    assert classes[0] == [one["target"]["index"] for one in record["images"][0]["others"]]
    assert all(later == earlier[:-1] for earlier, later in pairwise(classes[:-1]))
    assert classes[-1] == classes[-2] == [7]
    last, words = steps[-1]
    assert last["sites"] == ["resid_post"]
    assert list(last["images"][0]["tokens"]) == list(last["images"][0]["norms"]) == ["resid_post"]
    assert last["images"][0]["tokens"]["resid_post"] == record["images"][0]["tokens"]["resid_post"]
    assert words[-1] == "tokens at other places than after each block"


# --- in a browser


def frame_of(page: Page) -> Frame:
    page.wait_for_selector("iframe")
    frame = page.frames[1]
    frame.wait_for_selector("html[data-ready=true]")
    return frame


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_the_report_works_within_a_notebook(width: int, browser: Browser, tmp_path: Path) -> None:
    record = make_record(SMALL)
    html = Inspection(record, make_pictures(SMALL))._repr_html_()
    with quiet(browser, viewport={"width": width, "height": 900}) as page:
        show(page, tmp_path, html)
        frame = frame_of(page)
        box = page.locator("iframe").bounding_box()
        assert box is not None
        assert box["width"] == page.evaluate("document.getElementById('cell').clientWidth") > width - 50
        assert 500 < box["height"] < 900
        assert page.get_attribute("iframe", "title") == "How builtin:cifar10 builds its classes"
        assert page.evaluate("getComputedStyle(document.querySelector('iframe')).opacity") == "1"
        assert frame.evaluate("document.documentElement.scrollWidth") <= box["width"]
        assert frame.is_hidden("#left-out")
        # Its own styles, and the notebook's own.
        assert frame.evaluate("getComputedStyle(document.querySelector('h1')).color") != "rgb(200, 0, 0)"
        assert page.evaluate("getComputedStyle(document.querySelector('.host')).color") == "rgb(1, 2, 3)"
        assert page.evaluate("getComputedStyle(document.querySelector('.host')).fontSize") == "17px"
        # Interactive: another block and another image.
        frame.locator("#block").focus()
        page.keyboard.press("Home")
        for _ in range(2):
            page.keyboard.press("ArrowRight")
        assert_inspector(frame, SMALL, record, 0, "resid_post", 2)  # type: ignore[arg-type]
        frame.click("#image-choice [data-image='1']")
        assert frame.locator("#image-choice [aria-pressed=true]").inner_text() == "second.png"
        assert page.url.endswith("host.html")
        # Nothing of the notebook can be reached from it.
        assert frame.evaluate(
            "(() => { try { return parent.document.title; } catch (error) { return error.name; } })()"
        ) == ("SecurityError")


@pytest.mark.browser
def test_what_is_left_out_is_said_on_the_page(large: str, page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, large)
    frame = frame_of(page)
    assert frame.inner_text("#left-out").startswith("Left out to fit a notebook: attention of every head; maps of the ")
    assert frame.is_visible("#left-out")
    assert frame.is_hidden("#heads")
    assert frame.locator("#class-choice option").count() < 5


@pytest.mark.browser
def test_attention_of_the_pooled_queries_stays(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inspection = classlens.load("builtin:cifar10").inspect(torch.zeros(1, 3, 32, 32))
    monkeypatch.setattr(subject, "LARGEST", 300_000)
    html = inspection._repr_html_()
    assert left_out(html).startswith(
        "Left out to fit a notebook: attention of tokens that the head of the model does not"
    )
    show(page, tmp_path, html)
    frame = frame_of(page)
    assert "The page holds only the queries that the head pools." in frame.inner_text("#head-words")


@pytest.mark.browser
def test_hostile_names_stay_names(page: Page, tmp_path: Path) -> None:
    sizes = Sizes(blocks=2, classes=HOSTILE, target=0, others=(1,), images=HOSTILE[:2], name=HOSTILE[1])
    record: Record = make_record(sizes)
    html = Inspection(record, make_pictures(sizes))._repr_html_()
    show(page, tmp_path, html)
    frame = frame_of(page)
    for document in (page, frame):
        assert document.locator("#injected, img[onerror]").count() == 0
    assert page.get_attribute("iframe", "title") == f"How {HOSTILE[1]} builds its classes"
    assert frame.locator("#model-name").text_content() == HOSTILE[1]
    names = frame.locator("#predictions .label").all_text_contents()
    assert names == [visible(one["name"]) for one in record["images"][0]["predictions"]]
