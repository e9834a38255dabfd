"""Whether images in which `[CLS]` uses memories of their class are classified right."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.charts import Lines
from classlens.analysis.experiment import Experiment, Key, Reduction, add_holm, averages
from classlens.analysis.experiments.key_value_agreement import LABELS
from classlens.analysis.labels import Label
from classlens.analysis.measured_store import MeasuredStore, Requirement, StoredBatch
from classlens.core.arrays import Array
from classlens.core.stats import Statistics, shuffle_labels

KEYS = ("by", "sublayer", "images_are")


def update(batch: StoredBatch) -> Reduction:
    """Whether ``[CLS]`` agrees in each correct image (NaN in the others), and in each wrong one."""
    correct = batch.values("correct")
    values: dict[Key, Array] = {}
    for by in ("class", "value"):
        for sublayer in ("attn", "mlp"):
            agrees = batch.token_mean(batch.values("key_value_agreement", by=by, sublayer=sublayer) == 1, "cls")
            for images_are, flag in (("correct", 1), ("wrong", 0)):
                values[f"by_{by}", sublayer, images_are] = np.where((correct == flag)[:, None], agrees, np.nan)
    return Reduction(values)


def compute(store: MeasuredStore, reduction: Reduction, statistics: Statistics) -> pd.DataFrame:
    table = averages(KEYS, reduction.values, statistics, blocks=range(store.blocks))
    table[["difference", "p"]] = np.nan
    for by, sublayer, images_are in reduction.values:
        if images_are == "correct":
            correct, wrong = (reduction.values[by, sublayer, kind] for kind in ("correct", "wrong"))
            correct_rows, wrong_rows = (
                (table[list(KEYS)] == [by, sublayer, kind]).all(axis=1) for kind in ("correct", "wrong")
            )
            wrong_rates = table.loc[wrong_rows, "value"].to_numpy()
            table.loc[correct_rows, "difference"] = table.loc[correct_rows, "value"].to_numpy() - wrong_rates
            table.loc[correct_rows, "p"] = [
                shuffle_labels(_counts(correct[:, block]), _counts(wrong[:, block]), np.arange(2), statistics)
                for block in range(store.blocks)
            ]
    return add_holm(table, KEYS)


def _counts(agrees: Array) -> Array:
    """Numbers of images that disagree, and that agree."""
    return np.bincount(agrees[~np.isnan(agrees)].astype(np.int64), minlength=2)


EXPERIMENT = Experiment(
    name="agreement_accuracy",
    label="Key-value agreement and accuracy",
    about="whether agreement at `[CLS]` goes with being right",
    definition="Key-value agreement rate of [CLS] in images that the model classifies right and in those it gets "
    "wrong. difference: right minus wrong; p: one-sided permutation test, images shuffled between the two.",
    keys=KEYS,
    needs=(Requirement(memories=True, cls=True, labels=True),),
    charts=(Lines(value="agreement rate of [CLS]", color="images_are", rows="sublayer", where={"by": ("by_class",)}),),
    value_labels={**LABELS, "correct": Label("right images"), "wrong": Label("wrong images")},
    update=update,
    compute=compute,
)
