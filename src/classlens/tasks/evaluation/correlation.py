"""Rank correlation of importance maps."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from classlens.tasks.evaluation.curves import Floats

CORRELATION_NOTE = "Spearman correlation of the two maps over image tokens; NaN where one is constant"


def rank_correlation(
    first: Float[Tensor, "image token"], second: Float[Tensor, "image token"]
) -> Float[ndarray, " image"]:
    """Spearman's correlation of each pair of maps, equal values with their mean rank; NaN for a constant map."""
    from scipy.stats import rankdata

    ranks = [rankdata(maps.double().numpy(), axis=1) for maps in (first, second)]
    x, y = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    scale = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    correlation: Floats = np.divide((x * y).sum(axis=1), scale, out=np.full(len(scale), np.nan), where=scale > 0)
    return correlation
