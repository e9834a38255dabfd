"""One row for each image of a store: prediction, label, and how the class builds up in its pooled tokens."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.measured_store import StoredBatch
from classlens.core.arrays import Array

CONTENT = "content"
"""The content of an image, where a store has it; it is compared and not shown."""


def image_rows(batch: StoredBatch) -> pd.DataFrame:
    """A table of the images of a batch.

    ``commitment`` is the first block from which on half of the tokens or more have the prediction on top; it is NaN
    where they do not at the end. ``rank_0``, ``rank_1`` … is the mean rank of the class of interest after each block.
    The tokens are ``[CLS]``, or all image tokens of a model without.
    """
    store = batch.store
    names = np.array([*store.class_names(), ""], dtype=object)  # -1 is the last
    label, prediction, correct = (batch.values(name) for name in ("label", "prediction", "correct"))
    columns: dict[str, object] = {
        "model": store.model,
        "image": batch.names(),
        "label": names[label],
        "target": names[batch.values("target")],
        "prediction": names[prediction],
        "correct": np.where(correct < 0, np.nan, correct),
        "confidence": batch.values("confidence") if batch.has("confidence") else np.nan,
    }
    if batch.has(CONTENT):
        columns[CONTENT] = batch.values(CONTENT)
    if "resid_post" in store.attrs["sites"]:
        tokens = store.token_groups[0]
        top1 = batch.values("top1", site="resid_post")[..., store.positions(tokens)]
        rank = batch.token_mean(batch.values("rank", site="resid_post"), tokens)
        columns |= {"tokens": tokens, "commitment": _commitment(top1, prediction)}
        columns |= {f"rank_{block}": rank[:, block] for block in range(store.blocks)}
    return pd.DataFrame(columns)


def _commitment(top1: Array, prediction: Array) -> Array:
    decided = (top1 == prediction[:, None, None]).mean(axis=-1) >= 0.5
    stays = np.logical_and.accumulate(decided[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(np.where(stays[:, -1], stays.argmax(axis=1), np.nan))
