"""Spearman's rank correlation, with ties."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray


def spearman(first: Float[ndarray, "row value"], second: Float[ndarray, "row value"]) -> Float[ndarray, " row"]:
    """Correlation of each pair of rows, equal values with their mean rank; NaN for a constant row, or one with NaN.

    Examples:
        >>> spearman(np.array([[1.0, 2.0, 9.0], [1.0, 1.0, 1.0]]), np.array([[0.3, 0.1, 0.0], [1.0, 2.0, 3.0]]))
        array([-1., nan])
    """
    x, y = (np.array([_centered_ranks(row) for row in rows]).reshape(rows.shape) for rows in (first, second))
    scale = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    known = (scale > 0) & ~(np.isnan(first) | np.isnan(second)).any(axis=1)
    correlation: ndarray[Any, np.dtype[np.float64]] = np.full(len(scale), np.nan)
    np.divide((x * y).sum(axis=1), scale, out=correlation, where=known)
    return correlation


def _centered_ranks(values: Float[ndarray, " value"]) -> ndarray[Any, np.dtype[np.float64]]:
    """Rank of each value less the mean rank."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: ndarray[Any, np.dtype[np.float64]] = (np.cumsum(counts) - (counts - 1) / 2)[group]
    return ranks - (len(values) + 1) / 2
