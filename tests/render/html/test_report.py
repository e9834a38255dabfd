from __future__ import annotations

import base64
import copy
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from classlens.errors import ClasslensError
from classlens.render.html.report import write_report
from classlens.text import visible
from tests.render.browser import chromium, quiet
from tests.render.pages import (
    NO_CLS,
    REGISTERS,
    SMALL,
    assert_inspector,
    assert_signed,
    assert_viridis,
    bars,
    colors,
    decimal,
    set_block,
)
from tests.render.records import CIFAR, SITES, Record, Sizes, make_pictures, make_record

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Open = Callable[[Sizes], tuple["Page", Record]]


# --- the file


class _Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    '"><b id="injected">\'&amp;',
    "猫 ñ \u2028 \u202e",
    "<!--<script>",
    "{{script}} ${1} \\u003c \\",
)


def test_file_is_one_and_loads_nothing(tmp_path: Path) -> None:
    write_report(make_record(SMALL), make_pictures(SMALL), tmp_path / "new" / "report.html")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]
    text = (tmp_path / "new" / "report.html").read_text(encoding="utf-8")
    elements = _Elements(text).found
    assert not [tag for tag, attributes in elements if tag in {"link", "iframe", "object"} or "src" in attributes]
    assert re.findall(r"https?://[^\"'\s]*", text) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"{{\w+}}", text)


def test_data_is_the_record(tmp_path: Path) -> None:
    record = make_record(SMALL)
    write_report(record, make_pictures(SMALL), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    found = {
        name: json.loads(body)
        for name, body in re.findall(r'<script type="application/json" id="([\w-]+)">(.*?)</script>', text)
    }
    assert found["record"]["model"] == record["model"]
    assert found["record"]["class_names"] == record["class_names"]
    assert list(found) == ["record", "image-0", "image-1"]
    for number, image in enumerate(record["images"]):
        shown = found[f"image-{number}"]
        assert shown["name"] == image["label"]
        for key in ("target", "predictions", "against"):
            assert shown[key] == image[key]
        for one, expected in zip(shown["classes"], (image, *image["others"]), strict=True):
            for key in ("target", "blocks", "largest"):
                assert one[key] == expected[key]
            np.testing.assert_allclose(one["margin"], expected["margin"], rtol=5.1e-6)
            for site in SITES:
                assert set(one["tokens"][site]) == set(expected["tokens"][site])
                for name, values in expected["tokens"][site].items():
                    same_array(one["tokens"][site][name], values)
            for name, maps in expected["explanations"].items():
                same_array(one["explanations"][name]["values"], maps["values"])
            for part in ("embed", "attention", "mlp", "bias", "logit"):
                np.testing.assert_allclose(one["attribution"][part], expected["attribution"][part], rtol=5.1e-6, atol=0)
            same_array(one["attribution"]["image_tokens"], expected["attribution"]["image_tokens"])


def same_array(packed: Any, expected: Any) -> None:
    """Whole numbers as they are, others within half a step of 32,767 from zero to the largest of their row."""
    numbers = np.frombuffer(base64.b64decode(packed["base64"]), dtype="<i2").reshape(packed["shape"])
    values = np.asarray(expected)
    if values.dtype.kind == "i":
        np.testing.assert_array_equal(numbers, values)
        return
    rows, wanted = (part.reshape(len(packed["scale"]), -1) for part in (numbers, values))
    steps = np.abs(wanted).max(axis=1, keepdims=True) / 32767
    assert len(packed["scale"]) >= len(values)
    assert (np.abs(rows * np.array(packed["scale"])[:, None] - wanted) <= 0.52 * steps).all()


def test_pictures_are_the_given_pixels(page: Page, tmp_path: Path) -> None:
    sizes = Sizes(blocks=1, heads=1, grid=(2, 2), input_size=(4, 6))
    picture = make_pictures(sizes)[0]
    write_report(make_record(sizes), [picture], tmp_path / "report.html")
    page.goto((tmp_path / "report.html").as_uri())
    pixels = page.evaluate("""async () => {
        const image = document.querySelector('#token-grid img');
        await image.decode();
        const canvas = document.createElement('canvas');
        [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
        canvas.getContext('2d').drawImage(image, 0, 0);
        return [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data];
    }""")
    np.testing.assert_array_equal(np.array(pixels).reshape(4, 6, 4)[..., :3], np.asarray(picture))


def test_size_of_a_large_model_is_moderate(tmp_path: Path) -> None:
    classes = [f"class {i}" for i in range(1000)]
    sizes = Sizes(
        blocks=12, heads=12, classes=classes, target=281, grid=(14, 14), input_size=(224, 224), others=(1, 5, 7, 8, 9)
    )
    write_report(make_record(sizes), [Image.new("RGB", (224, 224))], tmp_path / "report.html")
    # At 8/3 bytes a number: 12 blocks × 197 tokens × 4 sites × 5 classes with logits, and for 6 classes their ranks and
    # 2 methods × 144 maps of 196 values.
    assert (tmp_path / "report.html").stat().st_size < 2_000_000


def test_errors_name_the_input(tmp_path: Path) -> None:
    record = make_record(SMALL)
    pictures = make_pictures(SMALL)
    with pytest.raises(ClasslensError, match=r"^1 pictures were given for 2 images"):
        write_report(record, pictures[:1], tmp_path / "report.html")
    with pytest.raises(ClasslensError, match=r"^the record holds no images"):
        write_report({**record, "images": []}, [], tmp_path / "report.html")
    broken = copy.deepcopy(record)
    broken["images"][1]["predictions"][0]["logit"] = float("nan")
    with pytest.raises(ClasslensError, match=r"^image 'second.png' holds a number that is not finite"):
        write_report(broken, pictures, tmp_path / "report.html")
    broken["images"][1]["explanations"]["log_odds"]["values"][0][0][0] = float("inf")
    with pytest.raises(ClasslensError, match=r"^image 'second.png' holds a number that is not finite"):
        write_report(broken, pictures, tmp_path / "report.html")
    (tmp_path / "taken").mkdir()
    with pytest.raises(ClasslensError, match=r"^report .* cannot be written \(.*\): give another path"):
        write_report(record, pictures, tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_failed_write_leaves_the_earlier_file(tmp_path: Path) -> None:
    record = make_record(SMALL)
    path = tmp_path / "report.html"
    write_report(record, make_pictures(SMALL), path)
    before = path.read_bytes()
    record["images"][0]["attribution"]["bias"] = float("nan")
    with pytest.raises(ClasslensError):
        write_report(record, make_pictures(SMALL), path)
    assert path.read_bytes() == before


# --- the page in a browser


@pytest.mark.browser
def test_tokens_and_pixels_are_told_in_the_same_order(show: Open) -> None:
    page, _ = show(REGISTERS)
    assert "5 × 3 of the picture (40 × 24 pixels, width × height)" in page.inner_text("#model-facts")


@pytest.mark.browser
def test_head_of_the_page(show: Open) -> None:
    page, record = show(SMALL)
    assert page.inner_text("h1") == "How builtin:cifar10 builds its classes"
    facts = page.inner_text("#model-facts")
    for fact in (
        "6 blocks × 4 heads",
        "10 classes",
        "65 tokens: [CLS] + 8 × 8",
        "residual sums off by 1.2e−6, logits exact",
    ):
        assert fact in facts
    rows = page.locator("#predictions li").all()
    expected = record["images"][0]["predictions"]
    assert [row.locator(".label").inner_text() for row in rows] == [one["name"] for one in expected]
    for row, one in zip(rows, expected, strict=True):
        width = "bar => bar.getBoundingClientRect().width / bar.parentElement.clientWidth"
        share = row.locator(".fill").evaluate(width)
        assert share == pytest.approx(one["probability"], abs=0.01)
    assert page.locator("#predictions .target .label").all_inner_texts() == ["cat"]
    largest = record["images"][0]["largest"]
    sublayer = {"mlp": "MLP", "attention": "attention"}[largest["sublayer"]]
    assert f"The {sublayer} of block {largest['block']} adds most" in page.inner_text("#story")


@pytest.mark.browser
def test_choosing_another_image_changes_everything(show: Open) -> None:
    page, record = show(SMALL)
    set_block(page, 2)
    picture = page.get_attribute("#token-grid img", "src")
    page.click("#bar-attention-3")
    page.click("#image-choice [data-image='1']")
    assert page.locator("#image-choice [aria-pressed=true]").inner_text() == "second.png"
    second = record["images"][1]
    assert page.locator("#predictions .label").all_inner_texts() == [one["name"] for one in second["predictions"]]
    assert_viridis(colors(page), second["tokens"]["resid_post"]["rank"][2], 10)
    assert_inspector(page, SMALL, record, 0, "resid_post", 2, image=1)
    values = np.array(second["explanations"]["log_odds"]["values"])
    assert_signed(colors(page, "#map-grid"), values.sum(axis=(0, 1)), 1)
    found = second["attribution"]
    assert decimal(page.inner_text("#total")) == pytest.approx(found["logit"], abs=0.00501)
    assert list(bars(page, "#head-bars").values()) == pytest.approx(found["attention"][3], abs=0.00501)
    assert page.get_attribute("#token-grid img", "src") != picture


@pytest.mark.browser
def test_one_image_needs_no_choice_and_no_cls_no_cell(show: Open) -> None:
    page, record = show(NO_CLS)
    assert page.is_hidden("#image-choice")
    assert page.locator("#token-grid .prefix").count() == 0
    assert "16 tokens: 4 × 4" in page.inner_text("#model-facts")
    assert "[CLS]" not in page.inner_text("main")
    assert "decides at the mean of its tokens" in page.inner_text("#model-facts")
    assert_inspector(page, NO_CLS, record, 0, "resid_post", 3)
    assert "(given)" in page.inner_text("#target")


@pytest.mark.browser
def test_given_class_that_is_not_the_prediction(show: Open) -> None:
    page, record = show(Sizes(target=1, chosen="given", blocks=2))
    record["images"][0]["predictions"].reverse()
    write_report(record, make_pictures(SMALL)[:1], Path(page.url.removeprefix("file://")))
    page.reload()
    first = record["images"][0]["predictions"][0]["name"]
    assert page.inner_text("#target") == f"Class of interest: automobile (given). The model predicts {first} instead."


@pytest.mark.browser
def test_when_the_class_comes_to_the_top(show: Open) -> None:
    page, record = show(Sizes(blocks=4))
    for ranks, words in {
        (0, 0, 0, 0): "on top after every block.",
        (3, 2, 0, 0): "on top from block 2 on.",
        (0, 0, 1, 0): "on top after the last block, and for a while after block 0, 1.",
        (3, 0, 1, 0): "on top after the last block, and for a while after block 1.",
        (0, 2, 0, 0): "on top from block 2 on, and for a while after block 0.",
        (3, 2, 1, 0): "on top only after the last block.",
    }.items():
        for block, rank in zip(record["images"][0]["blocks"], ranks, strict=True):
            block["cls_rank"] = rank
        write_report(record, make_pictures(SMALL)[:1], Path(page.url.removeprefix("file://")))
        page.reload()
        assert page.locator("#story li").first.inner_text() == f"[CLS] has cat {words}"


@pytest.mark.browser
def test_hostile_names_are_shown_as_text(show: Open) -> None:
    sizes = Sizes(blocks=2, classes=HOSTILE, target=0, images=(HOSTILE[0], HOSTILE[4], HOSTILE[2]), name=HOSTILE[1])
    page, record = show(sizes)
    assert page.locator("#injected, img[onerror]").count() == 0
    assert page.locator("#model-name").text_content() == HOSTILE[1]
    assert page.title() == f"classlens: 3 images, {HOSTILE[1]}"
    shown = [visible(name) for name in HOSTILE]
    assert shown[2] == "猫 ñ \\u2028 \\u202e", "no name turns the direction of the text"
    assert page.locator("#image-choice span").all_text_contents() == [shown[0], shown[4], shown[2]]
    names = page.locator("#predictions .label").all_text_contents()
    assert names == [visible(one["name"]) for one in record["images"][0]["predictions"]]
    assert set(names) == set(shown)
    assert page.locator("#token-classes tbody tr:last-child .name").all_text_contents() == [
        shown[index] for index in record["images"][0]["tokens"]["resid_post"]["top"][-1][0]
    ]
    page.check("#coloring input[value=top1]")
    page.hover("#token-grid [data-token='9']")
    page.click("#image-choice [data-image='1']")
    assert page.locator("#seen-caption").text_content() == HOSTILE[4]
    assert page.locator("#injected, img[onerror]").count() == 0


@pytest.mark.browser
def test_file_name_that_is_no_text(page: Page, tmp_path: Path) -> None:
    # What Python makes of a file name in bytes that are no UTF-8.
    sizes = Sizes(blocks=1, images=("caf\udce9.png",))
    write_report(make_record(sizes), make_pictures(sizes), tmp_path / "report.html")
    page.goto((tmp_path / "report.html").as_uri())
    assert page.inner_text("#seen-caption") == r"caf\udce9.png"
    assert page.title().startswith(r"classlens: caf\udce9.png, ")


@pytest.mark.browser
def test_policy_forbids_scripts_and_requests_of_others(browser: Browser, tmp_path: Path) -> None:
    record = make_record(REGISTERS)
    path = tmp_path / "report.html"
    write_report(record, make_pictures(REGISTERS), path)
    text = path.read_text(encoding="utf-8")
    planted = "<script>window.planted = true</script><img src='data:,x' onerror='window.planted = true'></body>"
    path.write_text(text.replace("</body>", planted), encoding="utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready=true]")
    assert page.evaluate("window.planted") is None
    assert page.evaluate("fetch('https://example.invalid/').then(() => 'sent', () => 'refused')") == "refused"
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 700, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_the_window_in_both_schemes(width: int, scheme: Any, browser: Browser, tmp_path: Path) -> None:
    names = ["a very long name of a class that goes on, and on, and on", *CIFAR[1:]]
    sizes = Sizes(classes=names, target=0, heads=12, prefix=("cls", "reg0"), images=("x" * 90, "b.png"), name="m" * 80)
    write_report(make_record(sizes), make_pictures(sizes), tmp_path / "report.html")
    with quiet(browser, viewport={"width": width, "height": 900}, color_scheme=scheme) as page:
        page.goto((tmp_path / "report.html").as_uri())
        page.wait_for_selector("html[data-ready=true]")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0] < 128")
        assert dark == (scheme == "dark")


@pytest.mark.browser
def test_every_control_has_words(show: Open) -> None:
    page, _ = show(SMALL)
    nameless = page.evaluate("""() => [...document.querySelectorAll('button, select, input')].filter((control) =>
        !control.labels?.length && !control.getAttribute('aria-label') && !control.textContent.trim()
    ).map((control) => control.outerHTML)""")
    assert nameless == []
    ids = page.eval_on_selector_all("[id]", "all => all.map(one => one.id)")
    assert len(ids) == len(set(ids))
    for name in ("for", "aria-labelledby", "aria-controls", "aria-describedby"):
        pointed = page.eval_on_selector_all(f"[{name}]", f"all => all.map(one => one.getAttribute('{name}'))")
        assert pointed, name
        assert set(pointed) <= set(ids), name


@pytest.mark.parametrize("required", [False, True])
def test_missing_browser_skips_unless_it_is_required(required: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLASSLENS_CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CLASSLENS_REQUIRE_BROWSER", "1" if required else "0")
    outcome = pytest.fail.Exception if required else pytest.skip.Exception
    with pytest.raises(outcome, match="apt-get install chromium"), chromium():
        pass
