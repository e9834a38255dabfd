"""The classes that the model would decide for after each block."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens import palette
from classlens.analysis.charts import Ribbons
from classlens.analysis.experiment import Experiment, Key, Reduction, averages
from classlens.analysis.labels import Label
from classlens.analysis.measured_store import MeasuredStore, Requirement, StoredBatch
from classlens.analysis.trajectories import Trajectories, decoded_conditions
from classlens.core.arrays import Array
from classlens.core.stats import Statistics
from classlens.tasks.tokens.conditions.registry import CLEAN

KEYS = ("condition", "category", "class_name")
OTHER = "all other classes"
_SHOWN = 8
"""Classes that have rows of their own."""


def update(batch: StoredBatch) -> Reduction:
    """The top-1 class of each image after each block, by condition."""
    values: dict[Key, Array] = {}
    for condition in decoded_conditions(batch.store):
        found = Trajectories.of(batch, condition)
        values[(condition,)] = found.of_known(found.top[..., 0])
    return Reduction(values)


def compute(store: MeasuredStore, reduction: Reduction, statistics: Statistics) -> pd.DataFrame:
    names = store.class_names()
    shares: dict[Key, Array] = {}
    for (condition,), top1 in reduction.values.items():
        known = ~np.isnan(top1)
        counts = np.bincount(top1[known].astype(np.int64), minlength=store.num_classes)
        shown = [category for category in np.argsort(-counts, kind="stable")[:_SHOWN] if counts[category]]
        rest = known & ~np.isin(top1, shown)
        for category in shown:
            shares[condition, str(category)] = np.where(known, top1 == category, np.nan)
        if rest.any():
            shares[condition, "-1"] = np.where(known, rest, np.nan)
    table = averages(KEYS[:2], shares, statistics, blocks=range(store.blocks))
    table["category"] = table["category"].astype(np.int64)
    table.insert(2, "class_name", [OTHER if category < 0 else names[category] for category in table["category"]])
    return table


EXPERIMENT = Experiment(
    name="decision_classes",
    label="The class on top after each block",
    about="which classes are on top after each block, over all images",
    definition="Share of images that have the class on top after each block, in the scores of the tokens that the head "
    f"pools. The {_SHOWN} classes that are on top most often, and all others together.",
    keys=KEYS,
    needs=(Requirement(trajectory=True),),
    charts=(Ribbons(value="share of images", where={"condition": (CLEAN,)}),),
    value_labels={OTHER: Label(OTHER, palette.GRAY)},
    update=update,
    compute=compute,
)
