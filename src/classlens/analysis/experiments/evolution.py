"""Class identifiability from block to block, beside the random twin."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.charts import Lines
from classlens.analysis.experiment import (
    RANDOM_INIT,
    TWIN,
    Experiment,
    Key,
    Reduction,
    add_holm,
    averages,
    model_and_twin,
)
from classlens.analysis.measured_store import MeasuredStore, Requirement, StoredBatch
from classlens.core.arrays import Array
from classlens.core.stats import Statistics, wilcoxon, wilcoxon_of_counts
from classlens.tasks.tokens.conditions.registry import CLEAN

KEYS = ("condition", "tokens", "measure")
_TESTS = ["p", "effect", "p_tokens", "effect_tokens"]


def update(batch: StoredBatch) -> Reduction:
    """Mean identifiability and share on top of each image; how often each difference to the twin's rank occurs."""
    store = batch.store
    values: dict[Key, Array] = {}
    counts: dict[Key, Array] = {}
    for condition in model_and_twin(store):
        rank = batch.values("rank", condition, site="resid_post")
        for tokens in store.token_groups:
            mean = batch.token_mean(rank, tokens, condition)
            values[condition, tokens, "identifiability"] = 1 - mean / store.num_classes
            values[condition, tokens, "share_on_top"] = batch.token_mean(rank == 0, tokens, condition)
    if store.has(RANDOM_INIT):
        twin_rank = batch.values("rank", RANDOM_INIT, site="resid_post").astype(np.int64)
        differences = twin_rank - batch.values("rank", site="resid_post")
        shifted = differences[batch.measured(RANDOM_INIT)] + store.num_classes - 1
        size = 2 * store.num_classes - 1
        for tokens in store.token_groups:
            of_group = shifted[:, :, store.positions(tokens)]
            counts[(tokens,)] = np.stack(
                [np.bincount(of_group[:, block].ravel(), minlength=size) for block in range(store.blocks)]
            )
    return Reduction(values, counts)


def compute(store: MeasuredStore, reduction: Reduction, statistics: Statistics) -> pd.DataFrame:
    values = reduction.values
    table = averages(KEYS, values, statistics, blocks=range(store.blocks))
    table["chance"] = np.where(table["measure"] == "share_on_top", 1 / store.num_classes, np.nan)
    table[_TESTS] = np.nan
    rank_differences = np.arange(1 - store.num_classes, store.num_classes)
    for (tokens,), counts in reduction.counts.items():
        difference = values[CLEAN, tokens, "identifiability"] - values[RANDOM_INIT, tokens, "identifiability"]
        rows = (table[list(KEYS)] == [CLEAN, tokens, "identifiability"]).all(axis=1)
        table.loc[rows, _TESTS] = np.array(
            [
                (*wilcoxon(difference[:, block]), *wilcoxon_of_counts(rank_differences, counts[block]))
                for block in range(store.blocks)
            ]
        )
    return add_holm(table, KEYS)


EXPERIMENT = Experiment(
    name="evolution",
    label="How the class builds up over blocks",
    about="class identifiability block by block, beside the random twin",
    definition="Class identifiability 1 - rank / C of the residual stream after each block, and the share of tokens "
    "with the class on top. p and effect: one-sided Wilcoxon signed-rank test of an image's mean against the random "
    "twin's, and its rank-biserial correlation; p_tokens: the same over tokens, as in the paper, which takes tokens of "
    "an image for independent.",
    keys=KEYS,
    needs=(Requirement(sites=("resid_post",)), TWIN, Requirement(cls=True, optional=True)),
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
