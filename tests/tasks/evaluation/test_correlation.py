"""Rank correlations, compared with scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from classlens.tasks.evaluation.correlation import rank_correlation


def test_rank_correlation_with_ties_and_of_constant_maps() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randint(0, 5, (6, 20), generator=generator).float() for _ in range(2))
    correlation = rank_correlation(first, second)
    for image in range(6):
        assert correlation[image] == pytest.approx(spearmanr(first[image], second[image]).statistic, abs=1e-12)
    assert np.isnan(rank_correlation(torch.zeros(1, 5), torch.rand(1, 5))).all()
    assert rank_correlation(first, 3 * first + 1) == pytest.approx(np.ones(6))
