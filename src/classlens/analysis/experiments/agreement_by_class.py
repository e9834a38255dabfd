"""Which classes the memories speak for, class by class."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.charts import Heat
from classlens.analysis.experiment import Experiment, Found, averages
from classlens.analysis.experiments.key_value_agreement import TARGET, update
from classlens.analysis.store_reader import Need, StoreReader
from classlens.core.stats import Statistics

KEYS = ("by", "sublayer", "category", "class_name")


def compute(store: StoreReader, found: Found, how: Statistics) -> pd.DataFrame:
    names = store.class_names()
    target = found.values[TARGET][:, 0]
    rates = {key[1:]: values for key, values in found.values.items() if key[0] == "clean"}
    tables = []
    for category in np.unique(target):
        rows = target == category
        table = averages(
            ("by", "sublayer"), {key: one[rows] for key, one in rates.items()}, how, blocks=range(store.blocks)
        )
        table.insert(2, "category", int(category))
        table.insert(3, "class_name", names[category])
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


EXPERIMENT = Experiment(
    name="agreement_by_class",
    title="Key-value agreement rate of each class",
    about="The key-value agreement rate of the images of each class; intervals are over the images of the class.",
    keys=KEYS,
    needs=(Need(memories=True),),
    charts=(Heat(value="key-value agreement rate", rows="sublayer", where={"by": ("by_class",)}),),
    update=update,
    compute=compute,
)
