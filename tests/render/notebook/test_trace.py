from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

import classlens
from classlens.explain.class_logits import token_logits
from classlens.text import visible
from tests import literal, zoo
from tests.render.browser import quiet
from tests.render.notebook.hosts import HOSTILE, elements, show, texts, titles

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def numbers(html: str) -> tuple[list[int], list[str]]:
    """Ranks and shares of all charts, in their order."""
    shown = titles(html)
    ranks = [int(match[1]) for title in shown if (match := re.match(r"block \d+: rank (\d+) of ", title))]
    shares = [match[1] for title in shown if (match := re.match(r"block \d+: (\S+%) of image tokens", title))]
    return ranks, shares


def percent(share: float) -> str:
    return f"{round(100 * share, 1):g}%" if share < 0.1 else f"{round(100 * share)}%"


@pytest.mark.parametrize("name", ["cls_registers", "avg", "avg_two_norms", "cls_post_norm"])
def test_numbers_are_those_of_the_model_alone(name: str) -> None:
    """timm's own modules on the states of each block, by loops."""
    model, pixels, variant = zoo.build(name), zoo.pixels(name), zoo.VARIANTS[name]
    states = literal.states(model, pixels)["resid_post"]
    with torch.no_grad():
        final = model(pixels)
        ranks: list[int] = []
        shares: list[float] = []
        for image, target in enumerate(final.argmax(dim=1).tolist()):
            for block, state in enumerate(states):
                x = model.norm(state[image : image + 1])
                pooled = model.fc_norm(x[:, list(variant.pooled)].mean(dim=1))
                logits = model.head(pooled)[0] if block < 2 else final[image]
                ranks.append(int((logits > logits[target]).sum()))
                each = model.head(model.fc_norm(x[0]))[len(variant.prefix) :]
                shares.append(float((each.argmax(dim=1) == target).double().mean()))
    trace = classlens.load(model).trace(pixels)
    html = trace._repr_html_()
    assert numbers(html) == (ranks, [percent(share) for share in shares])
    # The same as the trace's own.
    np.testing.assert_array_equal(np.reshape(ranks, (3, 3)), trace.trajectory(k=1)["rank"][:, 1:])
    on_top = (trace.rank() == 0).isel(token=slice(len(variant.prefix), None)).mean("token")
    np.testing.assert_allclose(np.reshape(shares, (3, 3)), on_top)
    # Read aloud, too.
    labels = [svg.get("aria-label", "") for svg in elements(html).iter("svg")]
    for image, label in enumerate(labels):
        assert f"{', '.join(map(str, ranks[3 * image : 3 * image + 3]))} (0 is on top)" in label
        assert ("rank at [CLS]" in label) == (name.startswith("cls"))


def test_predictions() -> None:
    trace = classlens.load("builtin:photos").trace(
        torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    )
    shown = [["".join(row.itertext()) for row in part] for part in elements(trace._repr_html_()).iter("ol")]
    names, logits = trace.model_logits.class_name.values, trace.model_logits.values.astype(np.float64)
    for rows, values in zip(shown, logits, strict=True):
        shares = np.exp(values) / np.exp(values).sum()
        for row, index in zip(rows, np.argsort(-values)[:5], strict=True):
            expected = "<0.1%" if shares[index] < 0.001 else percent(shares[index])
            assert row == f"{names[index]}{expected}"


def test_a_photo_is_shown_at_once_and_is_small() -> None:
    lens = classlens.load("builtin:photos")
    trace = lens.trace(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8))
    seconds = []
    for _ in range(3):
        start = time.process_time()
        html = trace._repr_html_()
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.3
    assert len(html) < 60_000


def test_the_first_images_alone_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = classlens.load("builtin:cifar10").trace(torch.rand(300, 3, 32, 32), batch_size=100)
    html = trace._repr_html_()
    assert len(list(elements(html).iter("img"))) == 8
    assert "The first 8 of 300 images are shown." in texts(html)
    assert len(html) < 200_000
    seen = []

    def counted(*given: Any) -> Any:
        for part in token_logits(*given):
            seen.append(part[0].stop)
            yield part

    monkeypatch.setattr("classlens.render.notebook.trace.token_logits", counted)
    monkeypatch.setattr("classlens.explain.class_logits.logits_at_once", lambda _: 65 * 10 * 20)
    assert trace._repr_html_() == html
    assert max(seen) <= 40, "one group of 20 images more than it shows, at most"


def test_outputs_that_are_no_classes_have_no_ranks() -> None:
    html = classlens.load(zoo.build("cls"), multi_label=True).trace(zoo.pixels("cls"))._repr_html_()
    assert "so they have no ranks" in texts(html)
    assert list(elements(html).iter("svg")) == []
    assert len(list(elements(html).iter("ol"))) == 3


def test_changed_weights_are_said_in_the_place_of_charts() -> None:
    model: Any = zoo.build("cls", torch.float32)
    trace = classlens.load(model).trace(zoo.pixels("cls", dtype=torch.float32))
    with torch.no_grad():
        nn.init.normal_(model.head.weight)
    html = trace._repr_html_()
    assert "the weights of model" in texts(html)
    assert "trace the images again" in texts(html)
    assert list(elements(html).iter("svg")) == []


def hostile_trace() -> classlens.Trace:
    names = [f"{HOSTILE[number % 4]} {number}" for number in range(zoo.CLASSES)]
    trace = classlens.load(zoo.build("cls", torch.float32), class_names=names).trace(
        zoo.pixels("cls", 2, torch.float32)
    )
    trace.names = list(HOSTILE[:2])
    return trace


def test_hostile_names_stay_names() -> None:
    trace = hostile_trace()
    html = trace._repr_html_()
    root = elements(html)
    assert {one.tag for one in root.iter()} <= {
        *("div", "p", "ol", "li", "span", "code", "img", "svg", "line", "rect", "text", "title", "polyline", "circle"),
    }
    assert [image.get("alt") for image in root.iter("img")] == [
        f"{visible(name)} as the model saw it" for name in (HOSTILE[0].rpartition("/")[2], HOSTILE[1])
    ]
    shown = "".join(root.itertext())
    for name in trace.predictions.class_name.values:
        assert visible(name) in shown
    assert all(char.isprintable() for char in html)


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_shown_in_any_notebook(width: int, scheme: Any, browser: Browser, tmp_path: Path) -> None:
    html = hostile_trace()._repr_html_()
    text, ground = (
        ("rgb(10, 10, 10)", "rgb(255, 255, 255)") if scheme == "light" else ("rgb(240, 240, 240)", "rgb(9, 9, 9)")
    )
    with quiet(browser, viewport={"width": width, "height": 900}, color_scheme=scheme) as page:
        show(page, tmp_path, f"<section style='color:{text};background:{ground};all:none'>{html}</section>")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for tag in ("img", "svg", "ol", "li"):
            for part in page.locator(f"#cell {tag}").all():
                assert part.is_visible(), tag
        assert page.locator("#cell img").first.bounding_box()["width"] == 116
        decoded = "images => images.every((image) => image.complete && image.naturalWidth > 0)"
        assert page.eval_on_selector_all("#cell img", decoded)
        # Words have the notebook's color, on its ground.
        colors = page.eval_on_selector_all(
            "#cell li, #cell li div",
            "all => all.map((one) => [getComputedStyle(one).color, getComputedStyle(one).fontSize])",
        )
        assert {tuple(pair) for pair in colors} == {(text, "13px")}
        assert page.evaluate("getComputedStyle(document.querySelector('#cell text')).fill") == text
        ground_of = "one => getComputedStyle(one).backgroundColor"
        assert page.locator("#cell li").first.evaluate(ground_of) == "rgba(0, 0, 0, 0)"
        assert page.evaluate("getComputedStyle(document.querySelector('.host')).fontSize") == "17px"
        assert page.locator("#injected, img[onerror], script").count() == 0
