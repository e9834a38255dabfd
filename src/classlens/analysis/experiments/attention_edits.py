"""What is left of class identifiability when attention is cut."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.charts import Dots
from classlens.analysis.experiment import Array, Experiment, Found, Key, averages, change_of
from classlens.analysis.experiments.identifiability import KEYS, rates
from classlens.analysis.store_reader import Need, Part, StoreReader
from classlens.core.stats import Statistics

EDITS = ("self_only", "no_cls")


def update(part: Part) -> Found:
    values: dict[Key, Array] = rates(part, "clean")
    for condition in EDITS:
        if part.store.has(condition):
            values |= rates(part, condition)
            # Published: edited values count `[CLS]`, unedited ones do not.
            on_top = part.of("rank", condition, site="resid_post")[:, -1:] == 0
            counted = np.concatenate([part.store.tokens("cls"), part.store.tokens("image")])
            values[condition, "reference", "tokens_identifiable"] = part.mean(on_top, counted, condition)
            del values[condition, "reference", "images_identifiable"]
    return Found(values)


def compute(store: StoreReader, found: Found, how: Statistics) -> pd.DataFrame:
    table = averages(KEYS, found.values, how)
    changes = [
        {} if key[0] == "clean" else change_of(values, found.values["clean", *key[1:]], how)
        for key, values in found.values.items()
    ]
    return table.join(pd.DataFrame(changes))


EXPERIMENT = Experiment(
    name="attention_edits",
    title="Cutting attention",
    about="Class identifiability rates at the last block and accuracy when image tokens attend to themselves alone "
    "(self_only), or do not see [CLS] (no_cls), beside the unedited model; change: of the same images, with a "
    "two-sided permutation p value (signs flipped over images). Counted as published, edited rates include "
    "[CLS].",
    keys=KEYS,
    needs=(
        Need(sites=("resid_post",), either=EDITS),
        Need("self_only", optional=True),
        Need("no_cls", optional=True),
        Need(labels=True, optional=True),
    ),
    charts=(
        Dots(
            value="share", labels=("model",), rows="measure", color="condition", where={"counting": ("image_tokens",)}
        ),
    ),
    update=update,
    compute=compute,
)
