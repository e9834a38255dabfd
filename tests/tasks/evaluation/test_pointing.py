"""Mosaics, their quarters, and how they are dealt."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from classlens.core.stats import Statistics
from classlens.tasks.evaluation.importance import parse_methods
from classlens.tasks.evaluation.metrics.pointing import Pointing, mosaic, quadruples, quarters
from tests import zoo
from tests.tasks.evaluation.batches import lens_of, seen


def test_a_mosaic_at_twice_the_resolution() -> None:
    pixels = torch.arange(8.0).view(8, 1, 1, 1).expand(-1, 3, 4, 6)
    found = mosaic(pixels, double=True)
    assert found.shape == (2, 3, 8, 12)
    for number in range(2):
        corners = [found[number, 0, y, x].item() for y, x in ((0, 0), (0, 11), (7, 0), (7, 11))]
        assert corners == [4 * number, 4 * number + 1, 4 * number + 2, 4 * number + 3]
    assert found[0, 0, 3, 5] == 0
    assert found[0, 0, 4, 6] == 3
    # Pixels stay where they are within their quarter.
    some = torch.rand(4, 3, 4, 6)
    torch.testing.assert_close(mosaic(some, double=True)[0, :, 4:, :6], some[2])


@pytest.mark.parametrize("size", [(4, 6), (5, 7)])
def test_a_mosaic_at_the_own_resolution(size: tuple[int, int]) -> None:
    pixels = torch.arange(4.0).view(4, 1, 1, 1).expand(-1, 1, *size).contiguous()
    found = mosaic(pixels, double=False)
    assert found.shape == (1, 1, *size)
    half = (size[0] // 2, size[1] // 2)
    torch.testing.assert_close(found[0, 0, : half[0], : half[1]], torch.zeros(half))
    torch.testing.assert_close(found[0, 0, half[0] : 2 * half[0], half[1] : 2 * half[1]], torch.full(half, 3.0))


def test_quarters_of_even_and_odd_grids() -> None:
    even = quarters(2, 4)
    assert even.tolist() == [
        [1, 1, 0, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 1, 1],
    ]
    odd = quarters(3, 1)
    assert odd.tolist() == [[0.5, 0.25, 0], [0.5, 0.25, 0], [0, 0.25, 0.5], [0, 0.25, 0.5]]


def test_share_of_what_is_positive() -> None:
    """A model on mosaics at twice its size, against sums over the grid."""
    lens = lens_of("cls_dynamic")
    pixels = zoo.pixels("cls_dynamic", 8)  # 2 × 4 tokens each, 4 × 8 in a mosaic
    target = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7])
    large = mosaic(pixels, double=True)
    (method,) = parse_methods("class_gradient")
    found = Pointing().measure(seen(lens, large, target), method)["share"]
    trace = lens.trace(large)
    for image in range(8):
        values = trace.explain(image, method="class_gradient").sum(("block", "head")).values[image // 4].reshape(4, 8)
        positive = np.maximum(values, 0)
        top, left = 2 * (image % 4 // 2), 4 * (image % 2)
        assert found[image] == pytest.approx(positive[top : top + 2, left : left + 4].sum() / positive.sum(), rel=1e-6)


def test_a_map_without_anything_positive() -> None:
    lens, pixels = lens_of("cls_dynamic"), zoo.pixels("cls_dynamic", 1)

    class Nothing:
        def importance(self, *_: object) -> torch.Tensor:
            return -torch.ones(1, 8)

    found = Pointing().measure(seen(lens, pixels, torch.arange(4)), Nothing())  # type: ignore[arg-type]
    assert found["share"].tolist() == [0] * 4


def test_intervals_are_over_mosaics() -> None:
    """Four images of one mosaic that share their fate are one draw, not four."""
    share = np.repeat([0.0, 1.0], 4 * 50)
    data = xr.Dataset({"share": ("image", share)})
    (score,) = Pointing().scores(data, Statistics(resamples=2_000))
    assert score.value == 0.5
    assert score.images == 400
    # A hundred draws of 0 or 1: a standard error of 0.05.
    assert score.high - score.low == pytest.approx(4 * 0.05 * 0.98, abs=0.03)


@given(st.lists(st.integers(-1, 6), max_size=60), st.integers(0, 5))
def test_each_four_in_a_row_are_of_four_classes(labels: list[int], seed: int) -> None:
    given_labels = np.array(labels, dtype=np.int64)
    found = quadruples(given_labels, seed)
    assert len(found) % 4 == 0
    assert len(set(found.tolist())) == len(found)
    for four in given_labels[found].reshape(-1, 4):
        assert len(set(four.tolist())) == 4
        assert (four >= 0).all()
    # No four of different classes are left: with the largest dealt first, as few as can be are left over.
    rest = np.delete(given_labels, found)
    assert len(set(rest[rest >= 0].tolist())) < 4


def test_equal_classes_are_dealt_out_whole_and_by_seed() -> None:
    labels = np.repeat(np.arange(10), 20)
    found = quadruples(labels, 0)
    assert len(found) == 200
    assert quadruples(labels, 0).tolist() == found.tolist()
    assert quadruples(labels, 1).tolist() != found.tolist()
    places = np.array([labels[found].reshape(-1, 4)[:, place] for place in range(4)])
    assert all(len(set(place.tolist())) == 10 for place in places)
