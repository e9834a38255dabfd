"""Largest cosine of value vectors and classes, from parameters alone."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.charts import Lines
from classlens.analysis.experiment import RANDOM_INIT, Experiment, Key, Reduction, add_holm, averages
from classlens.analysis.measured_store import MeasuredStore, Requirement
from classlens.core.arrays import Array
from classlens.core.stats import Statistics, wilcoxon
from classlens.tasks.tokens.conditions.registry import CLEAN

KEYS = ("condition", "sublayer")
# The store's names of weights, and the conditions that have these weights.
_CONDITIONS = {"model": CLEAN, "random_init": RANDOM_INIT}


def compute(store: MeasuredStore, reduction: Reduction, statistics: Statistics) -> pd.DataFrame:
    parameters = store.group("parameters")
    assert parameters is not None  # the experiment needs them
    agreement = parameters["class_value_agreement"].load().transpose("weights", "sublayer", "category", "block")
    values: dict[Key, Array] = {}
    for weights in agreement["weights"].values:
        for sublayer in agreement["sublayer"].values:
            cosines = agreement.sel(weights=weights, sublayer=sublayer).values.astype(np.float64)
            values[_CONDITIONS[str(weights)], str(sublayer)] = cosines
    table = averages(KEYS, values, statistics, blocks=range(store.blocks)).rename(columns={"images": "classes"})
    table[["p", "effect"]] = np.nan
    for (condition, sublayer), cosines in values.items():
        if condition == CLEAN and (RANDOM_INIT, sublayer) in values:
            differences = cosines - values[RANDOM_INIT, sublayer]
            rows = (table["condition"] == condition) & (table["sublayer"] == sublayer)
            tests = [wilcoxon(differences[:, block]) for block in range(store.blocks)]
            table.loc[rows, ["p", "effect"]] = np.array(tests)
    return add_holm(table, KEYS)


EXPERIMENT = Experiment(
    name="class_value_agreement",
    label="Class-value agreement",
    about="how close value vectors come to the classes",
    definition="The largest cosine between a class and any value vector of a sublayer, averaged over classes, from "
    "parameters alone. p and effect: one-sided Wilcoxon signed-rank test over classes against the random twin, and its "
    "rank-biserial correlation.",
    keys=KEYS,
    needs=(Requirement(parameters=True), Requirement(twin_parameters=True, optional=True)),
    charts=(Lines(value="largest cosine with the class", color="sublayer", dash="condition", unit_range=False),),
    compute=compute,
)
