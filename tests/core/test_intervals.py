"""Intervals in closed form against SciPy, and how often they hold the true value."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp

from classlens.core.intervals import mean_interval, share_interval


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_shares_as_in_scipy(confidence: float) -> None:
    hits, trials = np.array([[0, 1, 5], [9, 10, 500]]), np.array([[1, 3, 10], [10, 10, 1000]])
    low, high = share_interval(hits, trials, confidence)
    for index in np.ndindex(hits.shape):
        wanted = binomtest(int(hits[index]), int(trials[index])).proportion_ci(confidence, method="wilson")
        assert (low[index], high[index]) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_means_as_in_scipy(confidence: float) -> None:
    rng = np.random.default_rng(0)
    samples = [rng.normal(3, 2, size) for size in (2, 3, 50)]
    mean, count = np.array([sample.mean() for sample in samples]), np.array([len(sample) for sample in samples])
    squares = np.array([((sample - sample.mean()) ** 2).sum() for sample in samples])
    low, high = mean_interval(mean, squares, count, confidence)
    for number, sample in enumerate(samples):
        wanted = ttest_1samp(sample, 0).confidence_interval(confidence)
        assert (low[number], high[number]) == pytest.approx((wanted.low, wanted.high), rel=1e-10)


def test_without_enough_values_there_is_none() -> None:
    none = share_interval(np.array([0]), np.array([0]))
    assert np.isnan(none).all()
    low, high = mean_interval(np.array([np.nan, 2.0, 2.0]), np.array([0.0, 0.0, 0.0]), np.array([0, 1, 2]))
    np.testing.assert_array_equal(low, [np.nan, np.nan, 2])
    np.testing.assert_array_equal(high, [np.nan, np.nan, 2])
