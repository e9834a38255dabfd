"""Whether images are classified right where `[CLS]` uses memories of their class."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.charts import Lines
from classlens.analysis.experiment import Array, Experiment, Found, Key, averages, corrected
from classlens.analysis.store_reader import Need, Part, StoreReader
from classlens.core.stats import Statistics, shuffle_labels

KEYS = ("by", "sublayer", "images_are")


def update(part: Part) -> Found:
    """Whether ``[CLS]`` agrees, of right and of wrong images; NaN of the others."""
    correct = part.of("correct")
    values: dict[Key, Array] = {}
    for by in ("class", "value"):
        for sublayer in ("attn", "mlp"):
            agrees = part.of("key_value_agreement", by=by, sublayer=sublayer) == 1
            share = part.mean(agrees, "cls")
            for images_are, wanted in (("correct", 1), ("wrong", 0)):
                values[f"by_{by}", sublayer, images_are] = np.where((correct == wanted)[:, None], share, np.nan)
    return Found(values)


def compute(store: StoreReader, found: Found, how: Statistics) -> pd.DataFrame:
    table = averages(KEYS, found.values, how, blocks=range(store.blocks))
    table[["difference", "p"]] = np.nan
    for by, sublayer, images_are in found.values:
        if images_are == "correct":
            right, wrong = (found.values[by, sublayer, kind] for kind in ("correct", "wrong"))
            rows = (table[list(KEYS)] == [by, sublayer, images_are]).all(axis=1)
            other = (table[list(KEYS)] == [by, sublayer, "wrong"]).all(axis=1)
            table.loc[rows, "difference"] = table.loc[rows, "value"].to_numpy() - table.loc[other, "value"].to_numpy()
            table.loc[rows, "p"] = [
                shuffle_labels(_counts(right[:, block]), _counts(wrong[:, block]), np.arange(2), how)
                for block in range(store.blocks)
            ]
    return corrected(table, KEYS)


def _counts(agrees: Array) -> Array:
    return np.bincount(agrees[~np.isnan(agrees)].astype(np.int64), minlength=2)


EXPERIMENT = Experiment(
    name="agreement_accuracy",
    title="Key-value agreement and accuracy",
    about="Key-value agreement rate of [CLS] in images that the model classifies right and in those it gets wrong; "
    "difference: right minus wrong; p: one-sided permutation test, images shuffled between the two.",
    keys=KEYS,
    needs=(Need(memories=True, cls=True, labels=True),),
    charts=(Lines(value="agreement rate of [CLS]", color="images_are", rows="sublayer", where={"by": ("by_class",)}),),
    update=update,
    compute=compute,
)
