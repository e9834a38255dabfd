"""Class identifiability rates at the last block."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.charts import Dots
from classlens.analysis.experiment import TWIN, Experiment, Key, Reduction, averages, model_and_twin
from classlens.analysis.labels import Label
from classlens.analysis.measured_store import MeasuredStore, Requirement, StoredBatch
from classlens.core.arrays import Array
from classlens.core.stats import Statistics

KEYS = ("condition", "counting", "measure")
LABELS = {
    "image_tokens": Label("image tokens"),
    "reference": Label("counted as published"),
    "tokens_identifiable": Label("tokens identifiable"),
    "images_identifiable": Label("images with at least one"),
    "cls_identifiable": Label("[CLS] identifiable"),
    "accuracy": Label("top-1 accuracy"),
}


def update(batch: StoredBatch) -> Reduction:
    """The rates of the model and its twin."""
    values: dict[Key, Array] = {}
    for condition in model_and_twin(batch.store):
        values |= rates(batch, condition)
    return Reduction(values)


def rates(batch: StoredBatch, condition: str) -> dict[Key, Array]:
    """Rates of each image at the last block, ``[image, 1]``, by condition, counting and measure.

    The published code leaves the first token out, which is an image token where the model has no ``[CLS]``.
    """
    store = batch.store
    on_top = batch.values("rank", condition, site="resid_post")[:, -1:] == 0
    image = store.positions("image")
    has_cls = len(store.positions("cls")) > 0
    values: dict[Key, Array] = {}
    for counting, tokens in (("image_tokens", image), ("reference", image if has_cls else image[1:])):
        share = batch.token_mean(on_top, tokens, condition)
        values[condition, counting, "tokens_identifiable"] = share
        values[condition, counting, "images_identifiable"] = np.where(np.isnan(share), np.nan, share > 0)
    if has_cls:
        values[condition, "image_tokens", "cls_identifiable"] = batch.token_mean(on_top, "cls", condition)
    values[condition, "image_tokens", "accuracy"] = accuracy(batch, condition)
    return values


def accuracy(batch: StoredBatch, condition: str) -> Array:
    """1 for each image whose prediction is its label, else 0, ``[image, 1]``; NaN without a label."""
    correct = batch.values("correct", condition).astype(np.float64)
    return np.where(batch.measured(condition) & (correct >= 0), correct, np.nan)[:, None]


def compute(store: MeasuredStore, reduction: Reduction, statistics: Statistics) -> pd.DataFrame:
    table = averages(KEYS, reduction.values, statistics)
    # Chance is known for one token. For an image it would take independent tokens.
    chance = np.where(table["measure"] == "images_identifiable", np.nan, 1 / store.num_classes)
    return table.assign(chance=chance)


EXPERIMENT = Experiment(
    name="identifiability",
    label="Class identifiability rates at the last block",
    about="share of image tokens with the class on top at the last block, images with at least one, accuracy",
    definition="Share of an image's tokens with its class on top (rank 0), averaged over images; share of images with "
    "at least one such token; and the model's accuracy.",
    keys=KEYS,
    needs=(Requirement(sites=("resid_post",)), TWIN, Requirement(labels=True, optional=True)),
    charts=(
        Dots(
            value="share", labels=("model",), rows="measure", color="condition", where={"counting": ("image_tokens",)}
        ),
    ),
    value_labels=LABELS,
    update=update,
    compute=compute,
)
