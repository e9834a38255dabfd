"""Whether the memories that a token uses speak for its class."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.charts import Lines
from classlens.analysis.experiment import TWIN, Array, Experiment, Found, Key, averages, conditions
from classlens.analysis.store_reader import Need, Part, StoreReader
from classlens.core.stats import Statistics

KEYS = ("condition", "by", "sublayer")
BY = ("class", "value", "random_class")
TARGET = ("target",)


def update(part: Part) -> Found:
    """Share of all tokens of an image, ``[CLS]`` too, that agree; and the image's class."""
    values: dict[Key, Array] = {TARGET: part.of("target")[:, None]}
    for condition in conditions(part.store):
        for by in BY:
            for sublayer in ("attn", "mlp"):
                agrees = part.of("key_value_agreement", condition, by=by, sublayer=sublayer) == 1
                values[condition, f"by_{by}", sublayer] = part.mean(agrees, "all", condition)
    return Found(values)


def compute(store: StoreReader, found: Found, how: Statistics) -> pd.DataFrame:
    rates = {key: values for key, values in found.values.items() if key != TARGET}
    classes = found.values[TARGET][:, 0]
    return averages(KEYS, rates, how, blocks=range(store.blocks), groups=np.asarray(classes))


_VALUE = "key-value agreement rate"

EXPERIMENT = Experiment(
    name="key_value_agreement",
    title="Key-value agreement rate",
    about="Share of all tokens whose 5 memories with the largest coefficients agree with the class, within each "
    "class and then over classes. by_class: they meet the 5 memories that score highest for the class "
    "(published code); by_value: the class is among the 5 best of one of them (the paper's text); "
    "by_random_class: by_class for a class drawn at random, the control.",
    keys=KEYS,
    needs=(Need(memories=True), TWIN),
    charts=(
        Lines(value=_VALUE, color="by", rows="sublayer", where={"condition": ("clean",)}),
        Lines(
            value=_VALUE,
            suffix="models",
            color="model",
            rows="sublayer",
            columns=None,
            where={"condition": ("clean",), "by": ("by_class",)},
        ),
    ),
    update=update,
    compute=compute,
)
