"""Attention as the report holds it, against `trace.attention`, loops and scipy; and the panel that shows it."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy.stats import entropy as entropy_of

import classlens
from classlens.lens.trace import Trace
from classlens.render import attention_record
from classlens.render.attention_record import attention_records
from classlens.render.html.report import write_report
from tests import zoo
from tests.render.records import Record, Sizes, make_pictures

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture(scope="module")
def trace() -> Trace:
    return classlens.load(zoo.build("cls_registers", torch.float32)).trace(zoo.pixels("cls_registers", 2).float())


def decoded(record: dict[str, Any]) -> np.ndarray:
    levels = np.frombuffer(zlib.decompress(base64.b64decode(record["deflate"])), np.uint8).reshape(record["shape"])
    return np.asarray(np.array(record["largest"])[..., None] * (levels / record["levels"]) ** 2)


def test_weights_entropy_and_distance(trace: Trace) -> None:
    weights = trace.attention(queries="all").values.astype(np.float64)
    tokens = trace.recording.tokens
    prefix, (_, columns) = len(tokens.prefix), tokens.grid
    for image, record in enumerate(attention_records(trace)):
        assert record is not None
        assert record["queries"] == list(range(tokens.count))
        # Half a level of the root of a share: at most 1 / 15 of the largest weight.
        error = np.abs(decoded(record) - weights[image]) / weights[image].max(axis=-1, keepdims=True)
        assert error.max() <= 1 / 15
        np.testing.assert_allclose(record["entropy"], entropy_of(weights[image], axis=-1), atol=1e-6)
        for block, head, query in [(0, 0, 0), (1, 1, prefix), (2, 2, tokens.count - 1)]:
            if query < prefix:
                assert record["distance"][block][head][query] == -1
                continue
            here = divmod(query - prefix, columns)
            total = apart = 0.0
            for token in range(prefix, tokens.count):
                weight = weights[image, block, head, query, token]
                total, apart = total + weight, apart + weight * math.dist(here, divmod(token - prefix, columns))
            assert record["distance"][block][head][query] == pytest.approx(apart / total, abs=1e-6)


def test_pooled_queries_of_a_large_model(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks, heads, count = 3, 3, trace.recording.tokens.count
    monkeypatch.setattr(attention_record, "_WEIGHTS", blocks * heads * count * 2)
    record = attention_records(trace)[1]
    assert record is not None
    assert record["queries"] == [0]
    assert record["shape"] == [blocks, heads, 1, count]
    monkeypatch.setattr(attention_record, "_WEIGHTS", blocks * heads * count - 1)
    assert attention_records(trace) == [None, None]


Open = Callable[[Sizes], tuple["Page", Record]]
SIZES = Sizes(blocks=2, heads=2, grid=(2, 2), input_size=(8, 8))


def with_attention(record: Record, queries: list[int]) -> Record:
    """Weights 0, 1/4, 1, … of a query's largest: exact on the page."""
    levels = np.zeros((2, 2, len(queries), 5), np.uint8)
    levels[..., 1], levels[..., 2] = 1, 2
    levels[1, 0, 0] = [2, 0, 0, 0, 1]
    record["images"][0]["attention"] = {
        "queries": queries,
        "shape": list(levels.shape),
        "levels": 2,
        "largest": np.full((2, 2, len(queries)), 0.8).tolist(),
        "entropy": np.full((2, 2, len(queries)), 0.5).tolist(),
        "distance": np.where(np.array(queries) == 0, -1.0, 1.5)[None, None].repeat(2, 0).repeat(2, 1).tolist(),
        "deflate": base64.b64encode(zlib.compress(levels.tobytes())).decode(),
    }
    return record


def labels(page: Page) -> list[str]:
    page.wait_for_function(
        "() => document.querySelector('#head-grid .cell').style.getPropertyValue('--color') !== 'transparent'"
    )
    found: list[str] = page.eval_on_selector_all("#head-grid .cell", "cells => cells.map(cell => cell.ariaLabel)")
    return found


@pytest.mark.browser
def test_panel_shows_the_chosen_head_and_query(show: Open) -> None:
    page, record = show(SIZES)
    assert page.is_hidden("#heads"), "a record without attention has no panel"
    write_report(with_attention(record, [0, 1, 2, 3, 4]), make_pictures(SIZES), Path(page.url.removeprefix("file://")))
    page.reload()
    assert labels(page) == [
        "[CLS] token (query): about 80%",
        "Row 0, column 0: hardly any",
        "Row 0, column 1: hardly any",
        "Row 1, column 0: hardly any",
        "Row 1, column 1: about 20%",
    ]
    assert page.inner_text("#head-words") == "[CLS] token in block 1, head 0: entropy 0.50 of at most 1.61 nats."
    page.select_option("#head-block", "0")
    page.select_option("#head-number", "1")
    page.click("#head-grid [data-token='3']")
    assert labels(page)[1:3] == ["Row 0, column 0: about 20%", "Row 0, column 1: about 80%"]
    assert "Row 1, column 0 in block 0, head 1: entropy 0.50" in page.inner_text("#head-words")
    assert "mean distance 1.5 tokens." in page.inner_text("#head-words")


@pytest.mark.browser
def test_panel_with_pooled_queries_alone(show: Open) -> None:
    page, record = show(SIZES)
    write_report(with_attention(record, [0]), make_pictures(SIZES), Path(page.url.removeprefix("file://")))
    page.reload()
    page.click("#head-grid [data-token='3']")
    assert labels(page)[0] == "[CLS] token (query): about 80%"
    assert page.inner_text("#head-words").endswith("The page holds only the queries that the head pools.")
