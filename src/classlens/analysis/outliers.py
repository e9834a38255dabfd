"""Tokens of a store whose norm stands out, as experiments read them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool
from numpy import ndarray

from classlens import palette
from classlens.analysis.labels import Label
from classlens.analysis.measured_store import StoredBatch
from classlens.core.norms import large_norms
from classlens.tasks.tokens.conditions.registry import CLEAN
from classlens.tasks.tokens.schema import NORM

REMOVED = "outliers_removed"
"""The condition without outliers."""
TOKEN_LABELS: Mapping[str, Label] = {
    "ordinary": Label("image tokens without outliers", palette.IMAGE_TOKENS),
    "outlier": Label("outliers", palette.VERMILLION),
}


def token_kinds(
    batch: StoredBatch, condition: str = CLEAN, blocks: slice = slice(None)
) -> dict[str, Bool[ndarray, "image block token"]]:
    """Masks of the ``cls`` token, of ``ordinary`` image tokens and of ``outlier`` ones after blocks."""
    norms = batch.values(NORM, condition)[:, blocks]
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
