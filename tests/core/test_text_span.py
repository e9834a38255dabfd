"""TextSpan against NumPy in loops, planted directions, and outputs that do not vary."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from classlens.core.text_span import text_span


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def literal(outputs: Tensor, texts: Tensor, k: int) -> tuple[list[int], list[float]]:
    """The algorithm, one text after another; the span by least squares, the variance explained by all texts anew."""
    centered = outputs.numpy() - outputs.numpy().mean(axis=0)
    coefficients, *_ = np.linalg.lstsq(centered.T, texts.numpy().T, rcond=None)
    left = (centered.T @ coefficients).T
    rest, chosen, explained = centered.copy(), [], []
    directions: list[np.ndarray[tuple[int], np.dtype[np.float64]]] = []
    for _ in range(k):
        spread = [np.std(rest @ text) for text in left]
        best = int(np.argmax(spread))
        direction = left[best]
        directions.append(direction)
        scale = direction @ direction
        rest = np.array([row - (row @ direction) / scale * direction for row in rest])
        left = np.array([text - (text @ direction) / scale * direction for text in left])
        basis = np.stack(directions).T
        fit, *_ = np.linalg.lstsq(basis, centered.T, rcond=None)
        explained.append(1 - ((centered.T - basis @ fit) ** 2).sum() / (centered**2).sum())
        chosen.append(best)
    return chosen, explained


@pytest.mark.parametrize(("images", "width", "count"), [(30, 8, 40), (6, 20, 15), (12, 12, 4)])
def test_against_the_algorithm_written_out(images: int, width: int, count: int) -> None:
    """With fewer images than channels texts lie outside of the span, too."""
    outputs = drawn(images, width) * torch.linspace(0.3, 3, width, dtype=torch.float64) + 5
    texts = drawn(count, width, seed=1)
    k = min(4, count)
    chosen, explained = literal(outputs, texts, k)
    span = text_span(outputs, texts, k)
    assert span.text.tolist() == chosen
    np.testing.assert_allclose(span.explained, explained, rtol=0, atol=1e-9)


def test_planted_directions_come_in_the_order_of_their_size() -> None:
    rotation = torch.linalg.qr(drawn(16, 16))[0]
    sizes = torch.tensor([1.0, 4.0, 2.0], dtype=torch.float64)
    waves = torch.linalg.qr(drawn(50, 4, seed=1) - drawn(50, 4, seed=1).mean(dim=0))[0][:, :3]
    waves = torch.linalg.qr(waves - waves.mean(dim=0))[0]
    outputs = (waves * sizes) @ rotation[:3] + 7 * rotation[9]
    span = text_span(outputs, rotation, k=5)
    assert span.text.tolist() == [1, 2, 0, -1, -1]
    shares = [16 / 21, 20 / 21, 1, 1, 1]
    np.testing.assert_allclose(span.explained, shares, rtol=0, atol=1e-12)


def test_nothing_to_explain_and_texts_that_repeat() -> None:
    same = text_span(torch.ones(4, 3), drawn(5, 3), k=2)
    assert same.text.tolist() == [-1, -1]
    assert same.explained.isnan().all()
    texts = torch.eye(3).double()[[0, 0, 1, 0]]
    span = text_span(drawn(9, 3), texts, k=4)
    assert sorted(span.text.tolist()) == [-1, -1, 0, 2]
    assert span.explained[-1] < 1
