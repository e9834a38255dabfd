"""Mosaics, their quarters, and the images that they are made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from classlens.tasks.evaluation.mosaics import mosaic, quadruples, quarters


def test_a_mosaic_at_twice_the_resolution() -> None:
    pixels = torch.arange(8.0).view(8, 1, 1, 1).expand(-1, 3, 4, 6)
    mosaics = mosaic(pixels, double=True)
    assert mosaics.shape == (2, 3, 8, 12)
    for number in range(2):
        corners = [mosaics[number, 0, y, x].item() for y, x in ((0, 0), (0, 11), (7, 0), (7, 11))]
        assert corners == [4 * number, 4 * number + 1, 4 * number + 2, 4 * number + 3]
    assert mosaics[0, 0, 3, 5] == 0
    assert mosaics[0, 0, 4, 6] == 3
    # Pixels keep their positions within their quarter.
    images = torch.rand(4, 3, 4, 6)
    torch.testing.assert_close(mosaic(images, double=True)[0, :, 4:, :6], images[2])


@pytest.mark.parametrize("size", [(4, 6), (5, 7)])
def test_a_mosaic_at_the_resolution_of_its_images(size: tuple[int, int]) -> None:
    pixels = torch.arange(4.0).view(4, 1, 1, 1).expand(-1, 1, *size).contiguous()
    joined = mosaic(pixels, double=False)
    assert joined.shape == (1, 1, *size)
    half = (size[0] // 2, size[1] // 2)
    torch.testing.assert_close(joined[0, 0, : half[0], : half[1]], torch.zeros(half))
    torch.testing.assert_close(joined[0, 0, half[0] : 2 * half[0], half[1] : 2 * half[1]], torch.full(half, 3.0))


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


@given(st.lists(st.integers(-1, 6), max_size=60), st.integers(0, 5))
def test_every_four_consecutive_images_are_of_four_classes(labels: list[int], seed: int) -> None:
    label = np.array(labels, dtype=np.int64)
    chosen = quadruples(label, seed)
    assert len(chosen) % 4 == 0
    assert len(set(chosen.tolist())) == len(chosen)
    for quadruple in label[chosen].reshape(-1, 4):
        assert len(set(quadruple.tolist())) == 4
        assert (quadruple >= 0).all()
    # Images of fewer than four classes are left over, the fewest possible.
    left_over = np.delete(label, chosen)
    assert len(set(left_over[left_over >= 0].tolist())) < 4


def test_equal_classes_leave_nothing_over_and_depend_on_the_seed() -> None:
    labels = np.repeat(np.arange(10), 20)
    chosen = quadruples(labels, 0)
    assert len(chosen) == 200
    assert quadruples(labels, 0).tolist() == chosen.tolist()
    assert quadruples(labels, 1).tolist() != chosen.tolist()
    by_quarter = labels[chosen].reshape(-1, 4).T
    assert all(len(set(quarter.tolist())) == 10 for quarter in by_quarter)
