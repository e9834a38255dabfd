"""Tokens of a store whose norm stands out, as experiments read them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray

from classlens import palette
from classlens.analysis.labels import Label
from classlens.analysis.measured_store import StoredBatch
from classlens.core.arrays import Array
from classlens.core.norms import large_norms
from classlens.tasks.tokens.conditions.registry import CLEAN
from classlens.tasks.tokens.schema import NORM

REMOVED = "outliers_removed"
"""The condition without outliers."""
TOKEN_LABELS: Mapping[str, Label] = {
    "ordinary": Label("image tokens without outliers", palette.IMAGE_TOKENS),
    "outlier": Label("outliers", palette.VERMILLION),
}


def token_kinds(batch: StoredBatch, condition: str = CLEAN) -> dict[str, Bool[ndarray, "image block token"]]:
    """Which tokens are ``cls``, ``ordinary`` image tokens and ``outlier`` ones after each block."""
    norms = batch.values(NORM, condition)
    among = np.zeros(norms.shape, dtype=bool)
    among[..., batch.store.positions("image")] = True
    among &= ~np.isnan(norms)
    outliers = large_norms(torch.as_tensor(norms), torch.as_tensor(among)).numpy() & among
    kinds = {"ordinary": among & ~outliers, "outlier": outliers}
    if len(batch.store.positions("cls")):
        cls = np.zeros(norms.shape, dtype=bool)
        cls[..., batch.store.positions("cls")] = True
        kinds = {"cls": cls & ~np.isnan(norms), **kinds}
    return kinds


def mean_of(values: Array, chosen: Bool[ndarray, "*rows token"]) -> Float[ndarray, "*rows"]:
    """Mean over the chosen tokens; NaN where there is none."""
    number = chosen.sum(axis=-1)
    total = np.where(chosen, values, 0).sum(axis=-1, dtype=np.float64)
    means = np.full(number.shape, np.nan)
    np.divide(total, number, out=means, where=number > 0)
    return means
