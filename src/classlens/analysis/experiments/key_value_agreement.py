"""Whether the memories that a token uses agree with its class."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens import palette
from classlens.analysis.charts import Lines
from classlens.analysis.experiment import TWIN, Experiment, Key, Reduction, averages, model_and_twin
from classlens.analysis.labels import Label
from classlens.analysis.measured_store import MeasuredStore, Requirement, StoredBatch
from classlens.core.arrays import Array
from classlens.core.memories import STRONGEST
from classlens.core.stats import Statistics
from classlens.tasks.tokens.conditions.registry import CLEAN

KEYS = ("condition", "by", "sublayer")
BY = ("class", "value", "random_class")
TARGET = ("target",)
LABELS = {
    "by_class": Label("memories of the class (published code)"),
    "by_value": Label("classes of the memories (paper's text)"),
    "by_random_class": Label("memories of a random class (control)", palette.GRAY),
}


def update(batch: StoredBatch) -> Reduction:
    """Share of an image's tokens that agree, ``[CLS]`` among them; and the image's class under ``TARGET``."""
    values: dict[Key, Array] = {TARGET: batch.values("target")[:, None]}
    for condition in model_and_twin(batch.store):
        for by in BY:
            for sublayer in ("attn", "mlp"):
                agrees = batch.values("key_value_agreement", condition, by=by, sublayer=sublayer) == 1
                values[condition, f"by_{by}", sublayer] = batch.token_mean(agrees, "all", condition)
    return Reduction(values)


def compute(store: MeasuredStore, reduction: Reduction, statistics: Statistics) -> pd.DataFrame:
    rates = {key: values for key, values in reduction.values.items() if key != TARGET}
    classes = reduction.values[TARGET][:, 0]
    table = averages(KEYS, rates, statistics, blocks=range(store.blocks), groups=np.asarray(classes))
    # A memory of random scores has a class among its 5 best with probability 5 / C; one of 5 such memories is enough.
    misses = 1 - min(STRONGEST, store.num_classes) / store.num_classes
    table["chance"] = np.where(table["by"] == "by_value", 1 - misses**STRONGEST, np.nan)
    return table


_VALUE = "key-value agreement rate"

EXPERIMENT = Experiment(
    name="key_value_agreement",
    label="Key-value agreement rate",
    about="whether the memories that a token uses agree with its class",
    definition="Share of all tokens whose 5 memories with the largest coefficients agree with the class, within each "
    "class and then over classes. by_class: they meet the 5 memories that score highest for the class (published "
    "code); by_value: the class is among the 5 best of one of them (the paper's text); by_random_class: by_class "
    "for a class drawn at random, the control. chance: by_value of memories with random scores, 1 - (1 - 5/C)^5 for C "
    "classes; with few classes it is near 1 (0.97 for ten), and by_value says little.",
    keys=KEYS,
    needs=(Requirement(memories=True), TWIN),
    charts=(
        Lines(
            value=_VALUE,
            color="by",
            rows="sublayer",
            where={"condition": (CLEAN,)},
            chance_label="chance of the paper's text: 1 − (1 − 5/C)⁵",
        ),
        Lines(
            value=_VALUE,
            suffix="models",
            color="model",
            rows="sublayer",
            columns=None,
            where={"condition": (CLEAN,), "by": ("by_class",)},
        ),
    ),
    value_labels=LABELS,
    update=update,
    compute=compute,
)
