"""Tokens that show the class beside tokens that show its context."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from classlens import palette
from classlens.analysis.charts import Lines
from classlens.analysis.experiment import Experiment, Key, Reduction, add_holm, averages
from classlens.analysis.experiments.building import rises
from classlens.analysis.labels import Label
from classlens.analysis.measured_store import MeasuredStore, Requirement, StoredBatch
from classlens.core.arrays import Array
from classlens.core.stats import Statistics, estimate, flip_signs, ratio, shuffle_labels

KEYS = ("quantity", "labeled")
LABELED = ("class", "context")
_SITES = {"attn_rise": "attn_out", "mlp_rise": "mlp_out"}


def update(batch: StoredBatch) -> Reduction:
    """Means of each image over its tokens of a label, and how often tokens of a label have each value."""
    store, values, counts = batch.store, dict[Key, Array](), dict[Key, Array]()
    image = store.positions("image")
    labels = batch.values("class_token")[:, image]
    for quantity, facts, distinct in _quantities(batch):
        facts = facts[:, :, image]
        blocks = facts.shape[1]
        for labeled, flag in (("class", 1), ("context", 0)):
            mask = labels == flag
            number = mask.sum(axis=1)[:, None]
            total = (facts * mask[:, None]).sum(axis=2, dtype=np.float64)
            mean = ratio(total, number)
            values[quantity, labeled] = 1 - mean / store.num_classes if quantity == "identifiability" else mean
            # Each block counts in a range of its own, so that one bincount serves all blocks.
            shifted = facts.astype(np.int64) + np.arange(blocks)[:, None] * distinct
            of_label = shifted[np.broadcast_to(mask[:, None], facts.shape)]
            counts[quantity, labeled] = np.bincount(of_label, minlength=blocks * distinct).reshape(blocks, distinct)
    return Reduction(values, counts)


def _quantities(batch: StoredBatch) -> Iterator[tuple[str, Array, int]]:
    """Each quantity by token, and its number of distinct values: ranks for identifiability, else 0 or 1."""
    yield "identifiability", batch.values("rank", site="resid_post"), batch.store.num_classes
    for quantity, site in _SITES.items():
        if site in batch.store.attrs["sites"]:
            yield quantity, rises(batch, site.removesuffix("_out"), "block_input"), 2


def compute(store: MeasuredStore, reduction: Reduction, statistics: Statistics) -> pd.DataFrame:
    tables = []
    for quantity in dict.fromkeys(key[0] for key in reduction.values):
        of_class, of_context = (reduction.values[quantity, labeled] for labeled in LABELED)
        blocks = range(store.blocks - of_class.shape[1], store.blocks)
        rows = {key: values for key, values in reduction.values.items() if key[0] == quantity}
        tables.append(averages(KEYS, rows, statistics, blocks=blocks))
        class_counts, context_counts = (reduction.counts[quantity, labeled] for labeled in LABELED)
        pairs = list(zip(class_counts, context_counts, strict=True))
        # A token with a lower rank is more identifiable.
        points = np.arange(class_counts.shape[1]) * (-1 if quantity == "identifiability" else 1)
        difference = pd.DataFrame(
            {
                "quantity": quantity,
                "labeled": "difference",
                "block": list(blocks),
                **estimate(of_class - of_context, statistics)._asdict(),
                "p": flip_signs(of_class - of_context, statistics),
                "difference_tokens": [_mean(first, points) - _mean(second, points) for first, second in pairs],
                "p_tokens": [shuffle_labels(first, second, points, statistics) for first, second in pairs],
            }
        )
        if quantity == "identifiability":
            difference["difference_tokens"] /= store.num_classes
        tables.append(add_holm(add_holm(difference, ()), (), "p_tokens"))
    return pd.concat(tables, ignore_index=True)


def _mean(counts: Array, points: Array) -> float:
    return float(counts @ points / counts.sum()) if counts.sum() else float("nan")


EXPERIMENT = Experiment(
    name="class_vs_context",
    label="Tokens of the class and of its context",
    about="tokens that show the class beside those that do not: identifiability, and how often attention and MLP raise "
    "the class",
    definition="Image tokens whose patch shows the class beside those whose patch does not: class identifiability, and "
    "share whose class logit attention or MLP raises (against the block's input); an image's mean, then the mean over "
    "images. p: one-sided permutation test of the difference within images (signs flipped); p_tokens: labels shuffled "
    "over all tokens, as in the paper, which takes tokens of an image for independent.",
    keys=KEYS,
    needs=(
        Requirement(sites=("resid_post",), masks=True),
        Requirement(sites=("attn_out",), optional=True),
        Requirement(sites=("mlp_out",), optional=True),
        Requirement(sites=("embed",), optional=True),
    ),
    charts=(Lines(value="mean over tokens", color="labeled", rows="quantity", where={"labeled": LABELED}),),
    value_labels={
        "attn_rise": Label("attention raises the class"),
        "mlp_rise": Label("MLP raises the class"),
        "class": Label("the class", palette.VERMILLION),
        "context": Label("context", palette.BLUE),
    },
    update=update,
    compute=compute,
)
