"""What a person does with a report page and sees on it, for tests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib import colormaps

from tests.render.records import Record, Sizes

if TYPE_CHECKING:
    from playwright.sync_api import Page

SMALL = Sizes(images=("chelsea.png", "second.png"))
REGISTERS = Sizes(blocks=3, heads=2, prefix=("cls", "reg0", "reg1"), grid=(3, 5), input_size=(24, 40), seed=3)
NO_CLS = Sizes(blocks=4, heads=3, prefix=(), grid=(4, 4), input_size=(128, 128), chosen="given", seed=4)
THOUSAND = Sizes(blocks=3, heads=2, classes=[f"class {i}" for i in range(1000)], target=281, grid=(5, 5), seed=5)


def colors(page: Page, grid: str = "#token-grid") -> dict[int, tuple[float, ...]]:
    """The color that each token is painted with, as red, green, blue and, where there is one, opacity."""
    found = page.eval_on_selector_all(
        f"{grid} .cell", "cells => cells.map(c => [c.dataset.token, getComputedStyle(c, '::before').backgroundColor])"
    )
    return {int(token): tuple(float(part) for part in re.findall(r"[\d.]+", color)) for token, color in found}


def marked(page: Page) -> set[int]:
    tokens = "cells => cells.map(c => Number(c.dataset.token))"
    return set(page.eval_on_selector_all("#token-grid .cell.marked", tokens))


def decimal(text: str) -> float:
    return float(text.replace("−", "-"))


def set_block(page: Page, block: int) -> None:
    """Moves the slider with the keys that a person would use."""
    page.locator("#block").focus()
    page.keyboard.press("Home")
    for _ in range(block):
        page.keyboard.press("ArrowRight")


def bars(page: Page, group: str) -> dict[str, float]:
    rows = page.locator(f"{group} .bar").all()
    return {row.locator(".label").inner_text(): decimal(row.locator(".number").inner_text()) for row in rows}


def assert_viridis(shown: dict[int, tuple[float, ...]], ranks: Sequence[float], classes: int) -> None:
    assert len(shown) == len(ranks)
    for token, rank in enumerate(ranks):
        expected = [255 * part for part in colormaps["viridis"](1 - rank / classes)[:3]]
        # The page interpolates between 33 stops.
        np.testing.assert_allclose(shown[token], expected, atol=3.1, err_msg=f"token {token} of rank {rank}")


def assert_inspector(
    page: Page, sizes: Sizes, record: Record, token: int, site: str, block: int, image: int = 0
) -> None:
    """The inspector's table holds the classes and ranks of the token at every block."""
    found = record["images"][image]["tokens"][site]
    rows = page.locator("#token-classes tbody tr").all()
    assert len(rows) == len(found["rank"])
    for number, row in enumerate(rows):
        assert row.locator(".number").inner_text() == str(found["rank"][number][token])
        assert row.locator(".name").all_inner_texts() == [sizes.classes[index] for index in found["top"][number][token]]
        logits = [decimal(text) for text in row.locator("small").all_inner_texts()]
        np.testing.assert_allclose(logits, found["top_logit"][number][token], atol=0.0501)
        targets = row.locator(".target .name").all_inner_texts()
        assert targets == [sizes.classes[sizes.target]] * (sizes.target in found["top"][number][token])
        assert (row.get_attribute("aria-current") == "true") == (number == block)
    rank = found["rank"][block][token]
    assert f"rank {rank} of {len(sizes.classes)}, " in page.inner_text("#inspector-now")


def assert_signed(shown: dict[int, tuple[float, ...]], values: Any, first: int) -> None:
    """Vermillion for positive, blue for negative values, as opaque as they are large; zero is transparent."""
    largest = max(abs(value) for value in values)
    assert {token for token in shown if token >= first} == {first + token for token in range(len(values))}
    for token, value in enumerate(values):
        *rgb, alpha = shown[first + token]
        assert alpha == pytest.approx(0.72 * abs(value) / largest, abs=0.01), f"image token {token}"
        if alpha > 0.02:
            assert rgb == ([213, 94, 0] if value > 0 else [0, 114, 178]), f"image token {token}"
