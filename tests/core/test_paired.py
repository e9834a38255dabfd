"""Flips, effects, corrections and calibration, beside SciPy and numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from classlens.core.paired import adjusted, calibration_error, mcnemar, paired_share_interval, paired_t


def test_mcnemar_by_hand() -> None:
    # 2 · (C(6,0) + C(6,1)) / 2⁶ = 14/64; 2 · 1/2¹⁰; a tie is 1.
    p = mcnemar(np.array([[1, 10], [3, 0]]), np.array([[5, 0], [3, 0]]))
    assert p == pytest.approx(np.array([[14 / 64, 2 / 1024], [1, 1]]))
    assert mcnemar(np.array([5]), np.array([1])) == pytest.approx([14 / 64])


def test_mcnemar_stays_above_zero() -> None:
    assert 0 < mcnemar(np.array([0]), np.array([100_000]))[0] < 1e-300


def test_the_interval_of_a_paired_difference_by_hand() -> None:
    # Cells 10.5, 4.5 and 87 of 102: d = 6/102, standard error √((15 - 36/102) / 102²).
    low, high = paired_share_interval(np.array([10]), np.array([4]), np.array([100]))
    half = 1.959964 * np.sqrt(15 - 36 / 102) / 102
    assert (low[0], high[0]) == pytest.approx((6 / 102 - half, 6 / 102 + half), abs=1e-6)
    low, high = paired_share_interval(np.array([0]), np.array([0]), np.array([0]))
    assert np.isnan(low[0])
    assert np.isnan(high[0])


def test_the_interval_covers_the_difference() -> None:
    """95 % of 2,000 samples of 60 pairs have the true difference in their interval, within four standard errors."""
    rng = np.random.default_rng(0)
    cells = rng.multinomial(60, [0.15, 0.05, 0.8], 2000)
    low, high = paired_share_interval(cells[:, 0], cells[:, 1], np.full(2000, 60))
    covered = ((low <= 0.1) & (high >= 0.1)).mean()
    assert covered == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / 2000))


def test_paired_t_is_that_of_scipy() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, (12, 4))
    mean = values.mean(axis=0)
    effect, p = paired_t(mean, ((values - mean) ** 2).sum(axis=0), np.full(4, 12))
    assert p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert effect == pytest.approx(mean / values.std(axis=0, ddof=1))


def test_paired_t_at_its_edges() -> None:
    effect, p = paired_t(np.array([0.0, 2.0, -2.0, 0.0, 1.0]), np.zeros(5), np.array([5, 5, 5, 1, 1]))
    assert effect[:3].tolist() == [0, np.inf, -np.inf]
    assert np.isnan(effect[3])
    assert np.isnan(p[3:]).all()
    assert p[0] == 1
    assert 0 < p[1] == p[2] < 1e-300


def test_adjusted_by_hand() -> None:
    # The step-up procedure: 0.01 · 4/1, 0.02 · 4/2, 0.03 · 4/3, 0.5 · 4/4, each at most the next.
    assert adjusted(np.array([0.5, 0.01, np.nan, 0.03, 0.02])) == pytest.approx(
        [0.5, 0.04, np.nan, 0.04, 0.04], nan_ok=True
    )
    assert np.isnan(adjusted(np.array([np.nan]))).all()
    assert adjusted(np.array([])).shape == (0,)


def test_calibration_by_hand() -> None:
    confidence, right = np.array([0.95, 0.95, 0.55, 1.0, 0.0]), np.array([True, False, True, True, False])
    # Bin 15 holds 0.95, 0.95 and 1: |2 - 2.9| = 0.9. Bin 9 holds 0.55: 0.45. Bin 1 holds 0: 0.
    statistic = calibration_error(confidence, right)
    assert statistic(np.ones((1, 5))) == pytest.approx(np.array([[1.35 / 5]]))
    assert statistic(np.array([[0.0, 2, 0, 0, 0]])) == pytest.approx(np.array([[0.95]]))
