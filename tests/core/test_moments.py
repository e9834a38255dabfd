"""Moments of batches against those of all values at once."""

from __future__ import annotations

import numpy as np
import pytest

from classlens.core.moments import Moments


@pytest.mark.parametrize("sizes", [(40,), (1, 39), (7, 0, 13, 20), (1,) * 40])
def test_any_split_gives_the_moments_of_all_values(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(40, 3)) + 1e6  # a mean that is large against the spread
    values[rng.random(values.shape) < 0.2] = np.nan
    groups = rng.integers(-1, 4, 40)
    groups[groups == 2] = 3  # nobody is in group 2
    moments, start = Moments(4, 3), 0
    for size in sizes:
        moments.add(values[start : start + size].astype(np.float32).astype(np.float64), groups[start : start + size])
        start += size
    values = values.astype(np.float32).astype(np.float64)
    for group in range(4):
        for column in range(3):
            chosen = values[groups == group, column]
            chosen = chosen[~np.isnan(chosen)]
            assert moments.count[group, column] == len(chosen)
            if not len(chosen):
                assert np.isnan(moments.defined_mean[group, column])
                continue
            assert moments.defined_mean[group, column] == pytest.approx(chosen.mean(), rel=1e-15)
            # float64 has 16 digits, of which the mean of 1e6 takes 6; squares are near 10.
            assert moments.squares[group, column] == pytest.approx(((chosen - chosen.mean()) ** 2).sum(), abs=1e-8)


def test_moments_of_parts_merge() -> None:
    values = np.random.default_rng(4).normal(size=(30, 2))
    first, second = Moments(1, 2), Moments(1, 2)
    first.add(values[:11], np.zeros(11, dtype=np.int64))
    second.add(values[11:], np.zeros(19, dtype=np.int64))
    for merged in (first.merged(second), second.merged(first)):
        np.testing.assert_allclose(merged.mean[0], values.mean(axis=0), rtol=1e-14)
        np.testing.assert_allclose(merged.squares[0], ((values - values.mean(axis=0)) ** 2).sum(axis=0), rtol=1e-13)
    empty = Moments(1, 2).merged(Moments(1, 2))
    assert empty.count.tolist() == [[0, 0]]
    assert empty.mean.tolist() == [[0, 0]]


def test_the_batch_is_left_as_it_is() -> None:
    values = np.array([[np.nan, 1.0], [2.0, np.nan]])
    before = values.copy()
    Moments(1, 2).add(values, np.zeros(2, dtype=np.int64))
    np.testing.assert_array_equal(values, before)
