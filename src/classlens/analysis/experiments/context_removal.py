"""What is left of class identifiability when tokens of the context, or of the class, are dropped."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.charts import Dots
from classlens.analysis.experiment import Array, Experiment, Found, Key, averages, change_of
from classlens.analysis.experiments.identifiability import accuracy
from classlens.analysis.store_reader import Need, Part, StoreReader
from classlens.core.stats import Statistics

KEYS = ("condition", "tokens_are", "counting", "measure")
REMOVED = ("context_removed", "class_removed")
_HITS = "hits"


def update(part: Part) -> Found:
    """Of each image, the share of kept tokens with the class on top: when the others are dropped, and when not."""
    store = part.store
    image, cls = store.tokens("image"), store.tokens("cls")
    values, counts = dict[Key, Array](), dict[Key, Array]()
    for condition in REMOVED:
        if not store.has(condition):
            continue
        there = part.there(condition)
        counts[(condition,)] = there.sum()
        kept = (part.of("kept", condition) == 1) & there[:, None]
        for tokens_are, read in (("edited", condition), ("unedited", "clean")):
            on_top = (part.of("rank", read, site="resid_post")[:, -1] == 0) & kept
            hits, number = on_top[:, image].sum(axis=1), kept[:, image].sum(axis=1)
            values[condition, tokens_are, "image_tokens", "tokens_identifiable"] = _ratio(hits, number)
            if tokens_are == "edited":
                # Published: an image's mean with `[CLS]` when edited, all image tokens pooled when not.
                hits, number = hits + on_top[:, cls].sum(axis=1), number + kept[:, cls].sum(axis=1)
            shares = _ratio(hits, number)
            values[condition, tokens_are, "reference", "tokens_identifiable"] = shares
            values[condition, tokens_are, "reference", _HITS] = number[:, None].astype(np.float64)
            right = accuracy(part, read)
            right[~there] = np.nan
            values[condition, tokens_are, "image_tokens", "accuracy"] = right
    return Found(values, counts)


def _ratio(hits: Array, number: Array) -> Array:
    shares = np.full(len(hits), np.nan)
    np.divide(hits, number, out=shares, where=number > 0)
    return shares[:, None]


def compute(store: StoreReader, found: Found, how: Statistics) -> pd.DataFrame:
    values = {key: one for key, one in found.values.items() if key[-1] != _HITS}
    pooled = {key: found.values[*key[:-1], _HITS] for key in values if key[1:3] == ("unedited", "reference")}
    weights = {key: pooled.get(key, np.ones_like(one)) for key, one in values.items()}
    table = averages(KEYS, values, how, weights=weights)
    # Images that the condition has not reached are not counted: they may keep a token.
    measured = {condition: int(count) for (condition,), count in found.counts.items()}
    table["images_without"] = table["condition"].map(measured) - table["images"]
    changes = [
        change_of(one, values[key[0], "unedited", *key[2:]], how) if key[1:3] == ("edited", "image_tokens") else {}
        for key, one in values.items()
    ]
    return table.join(pd.DataFrame(changes))


EXPERIMENT = Experiment(
    name="context_removal",
    title="Dropping the context, or the class",
    about="Share of the kept tokens with the class on top at the last block, averaged over images: when the tokens "
    "of the context (context_removed) or of the class (class_removed) are dropped after position embeddings, "
    "and of the same tokens when nothing is dropped. Counted as published, edited shares include [CLS] and "
    "unedited ones pool all image tokens. An image that keeps no image token has no value (images_without).",
    keys=KEYS,
    needs=(
        Need(sites=("resid_post",), masks=True),
        Need(either=REMOVED),
        Need("context_removed", optional=True),
        Need("class_removed", optional=True),
        Need(labels=True, optional=True),
    ),
    charts=(
        Dots(
            value="share of kept tokens",
            labels=("model", "condition"),
            rows="measure",
            color="tokens_are",
            where={"counting": ("image_tokens",), "tokens_are": ("unedited", "edited")},
        ),
    ),
    update=update,
    compute=compute,
)
