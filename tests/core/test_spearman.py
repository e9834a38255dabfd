"""Rank correlations, compared with scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from classlens.core.spearman import spearman


def test_rank_correlation_with_ties_and_of_constant_rows() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 5, (6, 20)).astype(float) for _ in range(2))
    correlation = spearman(first, second)
    for row in range(6):
        assert correlation[row] == pytest.approx(spearmanr(first[row], second[row]).statistic, abs=1e-12)
    assert np.isnan(spearman(np.zeros((1, 5)), rng.random((1, 5)))).all()
    assert np.isnan(spearman(np.array([[np.nan, 1.0, 2.0]]), np.array([[1.0, 2.0, 3.0]]))).all()
    assert spearman(first, 3 * first + 1) == pytest.approx(np.ones(6))
    assert spearman(first, np.exp(-second)) == pytest.approx(-correlation)
    assert spearman(np.empty((0, 3)), np.empty((0, 3))).shape == (0,)
