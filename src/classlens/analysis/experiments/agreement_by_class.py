"""Key-value agreement rates, class by class."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.charts import Heat
from classlens.analysis.experiment import Experiment, Reduction, averages
from classlens.analysis.experiments.key_value_agreement import LABELS, TARGET, update
from classlens.analysis.measured_store import MeasuredStore, Requirement
from classlens.core.stats import Statistics
from classlens.tasks.tokens.conditions.registry import CLEAN

KEYS = ("by", "sublayer", "category", "class_name")


def compute(store: MeasuredStore, reduction: Reduction, statistics: Statistics) -> pd.DataFrame:
    names = store.class_names()
    target = reduction.values[TARGET][:, 0]
    rates = {key[1:]: values for key, values in reduction.values.items() if key[0] == CLEAN}
    tables = []
    for category in np.unique(target):
        of_class = {key: values[target == category] for key, values in rates.items()}
        table = averages(KEYS[:2], of_class, statistics, blocks=range(store.blocks))
        table.insert(2, "category", int(category))
        table.insert(3, "class_name", names[category])
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


EXPERIMENT = Experiment(
    name="agreement_by_class",
    label="Key-value agreement rate of each class",
    about="key-value agreement, class by class",
    definition="The key-value agreement rate of the images of each class; intervals are over the images of the class.",
    keys=KEYS,
    needs=(Requirement(memories=True),),
    charts=(Heat(value="key-value agreement rate", rows="sublayer", where={"by": ("by_class",)}),),
    value_labels=LABELS,
    update=update,
    compute=compute,
)
