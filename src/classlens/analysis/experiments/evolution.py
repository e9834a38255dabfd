"""Class identifiability from block to block, beside the random twin."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.charts import Lines
from classlens.analysis.experiment import TWIN, Array, Experiment, Found, Key, averages, conditions, corrected
from classlens.analysis.store_reader import Need, Part, StoreReader
from classlens.core.stats import Statistics, wilcoxon, wilcoxon_of_counts

KEYS = ("condition", "tokens", "measure")


def update(part: Part) -> Found:
    """Mean identifiability and share on top of each image; how often each difference to the twin's rank occurs."""
    store = part.store
    values: dict[Key, Array] = {}
    counts: dict[Key, Array] = {}
    for condition in conditions(store):
        rank = part.of("rank", condition, site="resid_post")
        for tokens in store.token_groups:
            mean = part.mean(rank, tokens, condition)
            values[condition, tokens, "identifiability"] = 1 - mean / store.num_classes
            values[condition, tokens, "share_on_top"] = part.mean(rank == 0, tokens, condition)
    if store.has("random_init"):
        better = part.of("rank", "random_init", site="resid_post").astype(np.int64) - part.of("rank", site="resid_post")
        better = better[part.there("random_init")]
        for tokens in store.token_groups:
            chosen = better[:, :, store.tokens(tokens)] + store.num_classes - 1
            size = 2 * store.num_classes - 1
            counts[(tokens,)] = np.stack(
                [np.bincount(chosen[:, block].ravel(), minlength=size) for block in range(store.blocks)]
            )
    return Found(values, counts)


def compute(store: StoreReader, found: Found, how: Statistics) -> pd.DataFrame:
    table = averages(KEYS, found.values, how, blocks=range(store.blocks))
    table["chance"] = np.where(table["measure"] == "share_on_top", 1 / store.num_classes, np.nan)
    table[["p", "effect", "p_tokens", "effect_tokens"]] = np.nan
    differences = np.arange(1 - store.num_classes, store.num_classes)
    for (tokens,), counts in found.counts.items():
        better = (
            found.values["clean", tokens, "identifiability"] - found.values["random_init", tokens, "identifiability"]
        )
        rows = (table[["condition", "tokens", "measure"]] == ["clean", tokens, "identifiability"]).all(axis=1)
        tests = [
            (*wilcoxon(better[:, block]), *wilcoxon_of_counts(differences, counts[block]))
            for block in range(store.blocks)
        ]
        table.loc[rows, ["p", "effect", "p_tokens", "effect_tokens"]] = np.array(tests)
    return corrected(table, KEYS)


EXPERIMENT = Experiment(
    name="evolution",
    title="How the class builds up over blocks",
    about="Class identifiability 1 - rank / C of the residual stream after each block, and the share of tokens with "
    "the class on top. p and effect: one-sided Wilcoxon signed-rank test of an image's mean against the "
    "random twin's, and its rank-biserial correlation; p_tokens: the same over tokens, as in the paper, which "
    "takes tokens of an image for independent.",
    keys=KEYS,
    needs=(Need(sites=("resid_post",)), TWIN, Need(cls=True, optional=True)),
    charts=(
        Lines(value="class identifiability", where={"measure": ("identifiability",)}, dash="condition"),
        Lines(
            value="share of tokens with the class on top",
            suffix="on_top",
            where={"measure": ("share_on_top",)},
            dash="condition",
        ),
    ),
    update=update,
    compute=compute,
)
