from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.render.pages import NO_CLS, REGISTERS, SMALL, assert_signed, bars, colors, decimal
from tests.render.records import Record, Sizes

if TYPE_CHECKING:
    from playwright.sync_api import Page

Open = Callable[[Sizes], tuple["Page", Record]]
pytestmark = pytest.mark.browser


@pytest.mark.parametrize("sizes", [SMALL, REGISTERS, NO_CLS], ids=["small", "registers", "no cls"])
def test_explanation_maps(sizes: Sizes, show: Open) -> None:
    page, record = show(sizes)
    first = len(sizes.prefix)
    values = np.array(record["images"][0]["explanation"]["values"])
    assert_signed(colors(page, "#map-grid"), values.sum(axis=(0, 1)), first)
    assert page.inner_text("#map-title") == "All blocks and heads"
    assert page.is_disabled("#map-head")
    assert ("[CLS]" in page.inner_text("#explanation-words")) == (sizes.pooling == "cls")

    page.click("#multiples [data-block='1'][data-head='all']")
    assert page.inner_text("#map-title") == "Block 2, all heads"
    assert_signed(colors(page, "#map-grid"), values[1].sum(axis=0), first)
    page.click("#multiples [data-block='2'][data-head='1']")
    assert page.inner_text("#map-title") == "Block 3, head 2"
    assert (page.input_value("#map-block"), page.input_value("#map-head")) == ("2", "1")
    assert_signed(colors(page, "#map-grid"), values[2, 1], first)
    (pressed,) = page.locator("#multiples [aria-pressed=true]").all()
    assert str(pressed.get_attribute("aria-label")).startswith("Block 3, head 2: sum ")

    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    assert page.inner_text("#map-title") == "Block 3, head 1"
    page.select_option("#map-block", label="1")
    page.select_option("#map-head", label="2")
    assert page.inner_text("#map-title") == "Block 1, head 2"
    token = page.locator(f"#map-grid [data-token='{first + 3}']")
    token.hover()
    assert "Block 1, head 2: " in page.inner_text("#tip")
    assert decimal(page.inner_text("#tip").split(": ")[1]) == pytest.approx(values[0, 1, 3], rel=0.011, abs=1e-7)
    page.click("#map-all")
    assert_signed(colors(page, "#map-grid"), values.sum(axis=(0, 1)), first)


def test_small_maps_share_a_scale_or_have_their_own(show: Open) -> None:
    page, record = show(REGISTERS)
    values = np.array(record["images"][0]["explanation"]["values"])

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
        expected[f"Block {block + 1} attention"] = sum(found["attention"][block])
        expected[f"Block {block + 1} MLP"] = found["mlp"][block]
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
    assert heads == pytest.approx({f"Head {i + 1}": v for i, v in enumerate(found["attention"][1])}, abs=0.00501)
    assert list(heads) == [f"Head {head + 1}" for head in range(sizes.heads)]
    assert_signed(colors(page, "#source-grid"), sources[1], first)
    assert page.inner_text("#detail-title") == "Through the attention of block 2"
    numbers = [decimal(text) for text in re.findall(r"[+−]?\d+\.\d+", page.inner_text("#detail-words"))]
    total, image = sum(found["attention"][1]), sources[1].sum()
    assert numbers == pytest.approx([total, image, total - image][: 3 if sizes.prefix else 2], abs=0.00501)
    assert page.locator("#bars [aria-pressed=true]").get_attribute("id") == "bar-attention-1"
    page.click("#detail-all")
    assert_signed(colors(page, "#source-grid"), sources.sum(axis=0), first)
