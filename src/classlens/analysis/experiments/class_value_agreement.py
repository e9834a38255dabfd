"""How close value vectors come to the classes, from parameters alone."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.charts import Lines
from classlens.analysis.experiment import Array, Experiment, Found, Key, averages, corrected
from classlens.analysis.store_reader import Need, StoreReader
from classlens.core.stats import Statistics, wilcoxon

KEYS = ("condition", "sublayer")
# The store's names of the weights, and the conditions that they are elsewhere.
_CONDITIONS = {"model": "clean", "random_init": "random_init"}


def compute(store: StoreReader, found: Found, how: Statistics) -> pd.DataFrame:
    parameters = store.group("parameters")
    assert parameters is not None  # the need is not optional
    agreement = parameters["class_value_agreement"].load()
    values: dict[Key, Array] = {}
    for weights in agreement["weights"].values:
        for sublayer in agreement["sublayer"].values:
            one = agreement.sel(weights=weights, sublayer=sublayer).transpose("category", "block")
            values[_CONDITIONS[str(weights)], str(sublayer)] = one.values.astype(np.float64)
    table = averages(KEYS, values, how, blocks=range(store.blocks)).rename(columns={"images": "classes"})
    table[["p", "effect"]] = np.nan
    for (condition, sublayer), own in values.items():
        if condition == "clean" and ("random_init", sublayer) in values:
            better = own - values["random_init", sublayer]
            rows = (table["condition"] == condition) & (table["sublayer"] == sublayer)
            table.loc[rows, ["p", "effect"]] = np.array([wilcoxon(better[:, block]) for block in range(store.blocks)])
    return corrected(table, KEYS)


EXPERIMENT = Experiment(
    name="class_value_agreement",
    title="Class-value agreement",
    about="The largest cosine between a class and any value vector of a sublayer, averaged over classes, from "
    "parameters alone; p and effect: one-sided Wilcoxon signed-rank test over classes against the random "
    "twin, and its rank-biserial correlation.",
    keys=KEYS,
    needs=(Need(parameters=True), Need(twin_parameters=True, optional=True)),
    charts=(Lines(value="largest cosine with the class", color="sublayer", dash="condition", whole=False),),
    compute=compute,
)
