"""Class identifiability rates at the last block."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.charts import Dots
from classlens.analysis.experiment import TWIN, Array, Experiment, Found, Key, averages, conditions
from classlens.analysis.store_reader import Need, Part, StoreReader
from classlens.core.stats import Statistics

KEYS = ("condition", "counting", "measure")


def update(part: Part) -> Found:
    """Facts of the last block: share of image tokens with the class on top, whether there is one, and the others."""
    values: dict[Key, Array] = {}
    for condition in conditions(part.store):
        values |= rates(part, condition)
    return Found(values)


def rates(part: Part, condition: str) -> dict[Key, Array]:
    """Of each image, ``[image, 1]`` by condition, counting and measure.

    The published code leaves the first token out, which is an image token where the model has no ``[CLS]``.
    """
    store = part.store
    on_top = part.of("rank", condition, site="resid_post")[:, -1:] == 0
    image = store.tokens("image")
    as_published = image if len(store.tokens("cls")) else image[1:]
    found: dict[Key, Array] = {}
    for counting, tokens in (("image_tokens", image), ("reference", as_published)):
        share = part.mean(on_top, tokens, condition)
        found[condition, counting, "tokens_identifiable"] = share
        found[condition, counting, "images_identifiable"] = np.where(np.isnan(share), np.nan, share > 0)
    if len(store.tokens("cls")):
        found[condition, "image_tokens", "cls_identifiable"] = part.mean(on_top, "cls", condition)
    found[condition, "image_tokens", "accuracy"] = accuracy(part, condition)
    return found


def accuracy(part: Part, condition: str) -> Array:
    """1 for each image whose prediction is its label, ``[image, 1]``; NaN without a label."""
    correct = part.of("correct", condition).astype(np.float64)
    return np.where(part.there(condition) & (correct >= 0), correct, np.nan)[:, None]


def compute(store: StoreReader, found: Found, how: Statistics) -> pd.DataFrame:
    table = averages(KEYS, found.values, how)
    # Of one token; of an image it would take tokens that are independent.
    chance = np.where(table["measure"] == "images_identifiable", np.nan, 1 / store.num_classes)
    return table.assign(chance=chance)


EXPERIMENT = Experiment(
    name="identifiability",
    title="Class identifiability rates at the last block",
    about="Share of an image's tokens with its class on top (rank 0), averaged over images; share of images with at "
    "least one such token; and the model's accuracy.",
    keys=KEYS,
    needs=(Need(sites=("resid_post",)), TWIN, Need(labels=True, optional=True)),
    charts=(
        Dots(
            value="share",
            labels=("model",),
            rows="measure",
            color="condition",
            where={"counting": ("image_tokens",)},
        ),
    ),
    update=update,
    compute=compute,
)
