"""Rank correlation of importance maps."""

from __future__ import annotations

from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from classlens.core.spearman import spearman

CORRELATION_NOTE = "Spearman correlation of the two maps over image tokens; NaN where one is constant"


def rank_correlation(
    first: Float[Tensor, "image token"], second: Float[Tensor, "image token"]
) -> Float[ndarray, " image"]:
    """Spearman's correlation of each pair of maps, equal values with their mean rank; NaN for a constant map."""
    return spearman(first.double().numpy(), second.double().numpy())
