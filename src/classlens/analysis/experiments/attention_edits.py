"""Class identifiability with attention cut."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.charts import Dots
from classlens.analysis.experiment import Experiment, Key, Reduction, averages, join_changes
from classlens.analysis.experiments.identifiability import KEYS, LABELS, rates
from classlens.analysis.measured_store import MeasuredStore, Requirement, StoredBatch
from classlens.core.arrays import Array
from classlens.core.stats import Statistics
from classlens.tasks.tokens.conditions.condition import no_edits
from classlens.tasks.tokens.conditions.registry import CLEAN, CONDITIONS

# Conditions that change what all tokens of the model see.
EDITED = tuple(
    name
    for name, condition in CONDITIONS.items()
    if condition.edits is not no_edits and condition.model == "model" and condition.keeps == "all"
)


def update(batch: StoredBatch) -> Reduction:
    """The rates of the model, and those under each edit."""
    values: dict[Key, Array] = rates(batch, CLEAN)
    for condition in EDITED:
        if batch.store.has(condition):
            values |= rates(batch, condition)
            # Published edited values count `[CLS]`, unedited ones do not.
            on_top = batch.values("rank", condition, site="resid_post")[:, -1:] == 0
            tokens = np.concatenate([batch.store.positions("cls"), batch.store.positions("image")])
            values[condition, "reference", "tokens_identifiable"] = batch.token_mean(on_top, tokens, condition)
            del values[condition, "reference", "images_identifiable"]
    return Reduction(values)


def compute(store: MeasuredStore, reduction: Reduction, statistics: Statistics) -> pd.DataFrame:
    table = averages(KEYS, reduction.values, statistics)
    unedited = {key: (CLEAN, *key[1:]) for key in reduction.values if key[0] != CLEAN}
    return join_changes(table, reduction.values, unedited, statistics)


EXPERIMENT = Experiment(
    name="attention_edits",
    label="Cutting attention",
    about="rates and accuracy when image tokens see only themselves, or do not see `[CLS]`",
    definition="Class identifiability rates at the last block and accuracy under every condition that edits the model, "
    "such as image tokens that attend to themselves alone (self_only) or do not see [CLS] (no_cls), beside the "
    "unedited model. change: edited minus unedited, of the same images, with a two-sided permutation p value (signs "
    "flipped over images). Counted as published, edited rates include [CLS].",
    keys=KEYS,
    needs=(
        Requirement(sites=("resid_post",), any_condition=EDITED),
        *(Requirement(condition, optional=True) for condition in EDITED),
        Requirement(labels=True, optional=True),
    ),
    charts=(
        Dots(
            value="share", labels=("model",), rows="measure", color="condition", where={"counting": ("image_tokens",)}
        ),
    ),
    value_labels=LABELS,
    update=update,
    compute=compute,
)
