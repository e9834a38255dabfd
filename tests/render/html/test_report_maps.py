from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.render.pages import NO_CLS, REGISTERS, SMALL, assert_signed, assert_viridis, bars, colors, decimal
from tests.render.records import CIFAR, Record, Sizes

if TYPE_CHECKING:
    from playwright.sync_api import Page

Open = Callable[[Sizes], tuple["Page", Record]]
pytestmark = pytest.mark.browser


@pytest.mark.parametrize("sizes", [SMALL, REGISTERS, NO_CLS], ids=["small", "registers", "no cls"])
def test_explanation_maps(sizes: Sizes, show: Open) -> None:
    page, record = show(sizes)
    first = len(sizes.prefix)
    values = np.array(record["images"][0]["explanations"]["log_odds"]["values"])
    assert_signed(colors(page, "#map-grid"), values.sum(axis=(0, 1)), first)
    assert page.inner_text("#map-title") == "All blocks and heads"
    assert page.is_disabled("#map-head")
    assert ("[CLS]" in page.inner_text("#explanation-words")) == (sizes.pooling == "cls")

    page.click("#multiples [data-block='1'][data-head='all']")
    assert page.inner_text("#map-title") == "Block 1, all heads"
    assert_signed(colors(page, "#map-grid"), values[1].sum(axis=0), first)
    page.click("#multiples [data-block='2'][data-head='1']")
    assert page.inner_text("#map-title") == "Block 2, head 1"
    assert (page.input_value("#map-block"), page.input_value("#map-head")) == ("2", "1")
    assert_signed(colors(page, "#map-grid"), values[2, 1], first)
    (pressed,) = page.locator("#multiples [aria-pressed=true]").all()
    assert str(pressed.get_attribute("aria-label")).startswith("Block 2, head 1: sum ")

    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    assert page.inner_text("#map-title") == "Block 2, head 0"
    page.select_option("#map-block", label="0")
    page.select_option("#map-head", label="1")
    assert page.inner_text("#map-title") == "Block 0, head 1"
    token = page.locator(f"#map-grid [data-token='{first + 3}']")
    token.hover()
    assert "Block 0, head 1: " in page.inner_text("#tip")
    assert decimal(page.inner_text("#tip").split(": ")[1]) == pytest.approx(values[0, 1, 3], rel=0.011, abs=1e-7)
    page.click("#map-all")
    assert_signed(colors(page, "#map-grid"), values.sum(axis=(0, 1)), first)


def test_small_maps_share_a_scale_or_have_their_own(show: Open) -> None:
    page, record = show(REGISTERS)
    values = np.array(record["images"][0]["explanations"]["log_odds"]["values"])

    # Chromium remarks on reading the same canvas twice, so the second look is at another one.
    def alphas(block: int, head: int | str) -> Any:
        data = page.eval_on_selector(
            f"#multiples [data-block='{block}'][data-head='{head}'] canvas",
            "c => [c.width, c.height, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]",
        )
        assert data[:2] == [5, 3]
        return np.array(data[2:]).reshape(-1, 4)[:, 3] / 255

    np.testing.assert_allclose(alphas(0, 1), abs(values[0, 1]) / abs(values).max(), atol=0.01)
    summed = values.sum(axis=1)
    np.testing.assert_allclose(alphas(2, "all"), abs(summed[2]) / abs(summed).max(), atol=0.01)
    page.check("#own-scale")
    np.testing.assert_allclose(alphas(0, 0), abs(values[0, 0]) / abs(values[0, 0]).max(), atol=0.01)


@pytest.mark.parametrize("sizes", [SMALL, REGISTERS, NO_CLS], ids=["small", "registers", "no cls"])
def test_attribution_bars_heads_and_sources(sizes: Sizes, show: Open) -> None:
    page, record = show(sizes)
    first = len(sizes.prefix)
    found = record["images"][0]["attribution"]
    expected = {"Embeddings": found["embed"], "Biases": found["bias"]}
    for block in range(sizes.blocks):
        expected[f"Block {block} attention"] = sum(found["attention"][block])
        expected[f"Block {block} MLP"] = found["mlp"][block]
    shown = bars(page, "#bars")
    assert shown == pytest.approx(expected, abs=0.00501)
    assert decimal(page.inner_text("#total")) == pytest.approx(found["logit"], abs=0.00501)
    largest = max(map(abs, expected.values()))
    for block in range(sizes.blocks):
        width = page.eval_on_selector(
            f"#bar-mlp-{block} .fill", "bar => bar.getBoundingClientRect().width / bar.parentElement.clientWidth"
        )
        assert width == pytest.approx(0.5 * abs(found["mlp"][block]) / largest, abs=0.005)

    sources = np.array(found["image_tokens"])
    assert_signed(colors(page, "#source-grid"), sources.sum(axis=0), first)
    assert bars(page, "#head-bars") == {}
    page.click("#bar-attention-1")
    heads = bars(page, "#head-bars")
    assert heads == pytest.approx({f"Head {i}": v for i, v in enumerate(found["attention"][1])}, abs=0.00501)
    assert list(heads) == [f"Head {head}" for head in range(sizes.heads)]
    assert_signed(colors(page, "#source-grid"), sources[1], first)
    assert page.inner_text("#detail-title") == "Through the attention of block 1"
    numbers = [decimal(text) for text in re.findall(r"[+−]?\d+\.\d+", page.inner_text("#detail-words"))]
    total, image = sum(found["attention"][1]), sources[1].sum()
    assert numbers == pytest.approx([total, image, total - image][: 3 if sizes.prefix else 2], abs=0.00501)
    assert page.locator("#bars [aria-pressed=true]").get_attribute("id") == "bar-attention-1"
    page.click("#detail-all")
    assert_signed(colors(page, "#source-grid"), sources.sum(axis=0), first)


def test_another_class_and_a_rival_without_another_run(show: Open) -> None:
    """Every part follows the chosen class; with a rival, maps and parts are differences of both classes' logits."""
    page, record = show(SMALL)
    image = record["images"][0]
    by_index = {one["target"]["index"]: one for one in (image, *image["others"])}
    assert page.input_value("#class-choice") == "3"
    assert page.input_value("#rival-choice") == ""
    page.select_option("#class-choice", "5")
    dog = by_index[5]
    assert page.inner_text("#target").startswith("Class of interest: dog (chosen here)")
    assert_viridis(colors(page), dog["tokens"]["resid_post"]["rank"][-1], 10)
    assert_signed(colors(page, "#map-grid"), np.sum(dog["explanations"]["log_odds"]["values"], axis=(0, 1)), 1)
    assert bars(page, "#bars")["Block 3 MLP"] == pytest.approx(dog["attribution"]["mlp"][3], abs=0.00501)

    page.select_option("#rival-choice", "3")
    for method in ("log_odds", "class_gradient"):
        page.check(f"#method input[value={method}]")
        parts = [by_index[index]["explanations"][method] for index in (5, 3)]
        dog_values, cat_values = (part["weight"] * np.array(part["values"]) for part in parts)
        assert_signed(colors(page, "#map-grid"), (dog_values - cat_values).sum(axis=(0, 1)), 1)
        assert "dog rather than cat" in page.inner_text("#explanation-words")
    assert "the logit loss" in page.inner_text("#explanation-words")
    difference = dog["attribution"]["mlp"][3] - by_index[3]["attribution"]["mlp"][3]
    assert bars(page, "#bars")["Block 3 MLP"] == pytest.approx(difference, abs=0.00501)
    assert "The logit of dog less that of cat is" in page.inner_text("#attribution-words")
    logits = dog["attribution"]["logit"] - by_index[3]["attribution"]["logit"]
    assert decimal(page.inner_text("#total")) == pytest.approx(logits, abs=0.00501)

    page.select_option("#class-choice", "3")
    assert page.input_value("#rival-choice") == "", "a class is not its own rival"
    assert_signed(colors(page, "#map-grid"), np.sum(image["explanations"]["class_gradient"]["values"], axis=(0, 1)), 1)


def test_a_rival_that_was_given_is_chosen_at_first(show: Open) -> None:
    page, record = show(Sizes(against=5, images=("a.png", "b.png")))
    assert page.input_value("#rival-choice") == "5"
    assert page.inner_text("#story").count("cat rather than dog") == 1
    for image in (0, 1):
        page.click(f"#image-choice [data-image='{image}']")
        one, other = (record["images"][image]["attribution"], record["images"][image]["others"][1]["attribution"])
        assert decimal(page.inner_text("#total")) == pytest.approx(one["logit"] - other["logit"], abs=0.00501)


def test_the_query_is_marked(show: Open) -> None:
    marked = "cells => cells.map(cell => cell.dataset.token + cell.getAttribute('aria-label'))"
    page, _ = show(REGISTERS)
    assert page.eval_on_selector_all("#map-grid .cell.query", marked) == ["0[CLS] token (query)"]
    assert "query: its attention is explained" in page.inner_text("#map-legend")


def test_a_mark_on_every_token_would_say_nothing(show: Open) -> None:
    page, _ = show(NO_CLS)
    assert page.locator("#map-grid .cell.query").count() == 0
    assert "Queries, whose attention is explained: the tokens that the head pools." in page.inner_text("#map-legend")


@pytest.mark.parametrize("problem_type", ["multi_label_classification", "regression"])
def test_outputs_that_are_no_classes(problem_type: str, show: Open) -> None:
    """Logits with their sign in the place of ranks, everywhere on the page."""
    page, record = show(Sizes(problem_type=problem_type, blocks=3, classes=CIFAR[:4]))
    image = record["images"][0]
    logits = image["tokens"]["resid_post"]["logit"]
    largest = max(map(abs, logits[2]))
    for token, color in colors(page).items():
        assert (color[2] < color[0]) == (logits[2][token] > 0) or abs(logits[2][token]) < 0.02 * largest
    assert page.locator("#coloring input[value=top1]").count() == 0
    text = page.inner_text("main")
    assert "rank" not in text.replace("so they have no ranks", "").lower()
    assert "on top" not in text
    assert ("a label is assigned where its logit is above 0" in text) == (problem_type != "regression")
    assert page.locator("#evolution-chart .point.cls").count() == 3
    shown = [decimal(row.locator(".number").inner_text()) for row in page.locator("#token-classes tbody tr").all()]
    assert shown == pytest.approx([row[0] for row in logits], abs=0.00501)
