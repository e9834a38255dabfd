"""Class identifiability when tokens of the context, or of the class, are dropped."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens import palette
from classlens.analysis.charts import Dots
from classlens.analysis.experiment import Experiment, Key, Reduction, averages, join_changes
from classlens.analysis.experiments.identifiability import LABELS, accuracy
from classlens.analysis.labels import Label
from classlens.analysis.measured_store import MeasuredStore, Requirement, StoredBatch
from classlens.core.arrays import Array
from classlens.core.stats import Statistics, ratio
from classlens.tasks.tokens.conditions.registry import CLEAN

KEYS = ("condition", "tokens_are", "counting", "measure")
REMOVED = ("context_removed", "class_removed")
_WEIGHT = "weight"


def update(batch: StoredBatch) -> Reduction:
    """Share of an image's kept tokens with the class on top, when the other tokens are dropped and when not."""
    store = batch.store
    image, cls = store.positions("image"), store.positions("cls")
    values, counts = dict[Key, Array](), dict[Key, Array]()
    for condition in REMOVED:
        if not store.has(condition):
            continue
        measured = batch.measured(condition)
        counts[(condition,)] = np.asarray(measured.sum())
        kept = (batch.values("kept", condition) == 1) & measured[:, None]
        for tokens_are, ranked_under in (("edited", condition), ("unedited", CLEAN)):
            on_top = (batch.values("rank", ranked_under, site="resid_post")[:, -1] == 0) & kept
            hits, number = on_top[:, image].sum(axis=1), kept[:, image].sum(axis=1)
            values[condition, tokens_are, "image_tokens", "tokens_identifiable"] = ratio(hits, number)[:, None]
            if tokens_are == "edited":
                # Published: an image's mean with `[CLS]` when edited, all image tokens pooled when not.
                hits, number = hits + on_top[:, cls].sum(axis=1), number + kept[:, cls].sum(axis=1)
            values[condition, tokens_are, "reference", "tokens_identifiable"] = ratio(hits, number)[:, None]
            values[condition, tokens_are, "reference", _WEIGHT] = number[:, None].astype(np.float64)
            correct = accuracy(batch, ranked_under)
            correct[~measured] = np.nan
            values[condition, tokens_are, "image_tokens", "accuracy"] = correct
    return Reduction(values, counts)


def compute(store: MeasuredStore, reduction: Reduction, statistics: Statistics) -> pd.DataFrame:
    values = {key: shares for key, shares in reduction.values.items() if key[-1] != _WEIGHT}
    pooled = {key: reduction.values[*key[:-1], _WEIGHT] for key in values if key[1:3] == ("unedited", "reference")}
    weights = {key: pooled.get(key, np.ones_like(shares)) for key, shares in values.items()}
    table = averages(KEYS, values, statistics, weights=weights)
    # An image that the condition has not reached yet may keep a token, so it is not counted.
    measured = {condition: int(count) for (condition,), count in reduction.counts.items()}
    table["images_without"] = table["condition"].map(measured) - table["images"]
    edited = {key: (key[0], "unedited", *key[2:]) for key in values if key[1:3] == ("edited", "image_tokens")}
    return join_changes(table, values, edited, statistics)


EXPERIMENT = Experiment(
    name="context_removal",
    label="Dropping the context, or the class",
    about="rates and accuracy when the tokens of the context, or of the class, are dropped",
    definition="Share of the kept tokens with the class on top at the last block, averaged over images: when the "
    "tokens of the context (context_removed) or of the class (class_removed) are dropped after position embeddings, "
    "and of the same tokens when nothing is dropped. Counted as published, edited shares include [CLS] and unedited "
    "ones pool all image tokens. An image that keeps no image token has no value (images_without).",
    keys=KEYS,
    needs=(
        Requirement(sites=("resid_post",), masks=True),
        Requirement(any_condition=REMOVED),
        Requirement("context_removed", optional=True),
        Requirement("class_removed", optional=True),
        Requirement(labels=True, optional=True),
    ),
    charts=(
        Dots(
            value="share",
            labels=("model", "condition"),
            rows="measure",
            color="tokens_are",
            where={"counting": ("image_tokens",), "tokens_are": ("unedited", "edited")},
        ),
    ),
    value_labels={
        **LABELS,
        "edited": Label("edited", palette.VERMILLION),
        "unedited": Label("unedited", palette.BLUE),
    },
    update=update,
    compute=compute,
)
