"""Source of the residual stream's top-1 class."""

from __future__ import annotations

import pandas as pd

from classlens import palette
from classlens.analysis.charts import Lines
from classlens.analysis.experiment import TWIN, Experiment, Key, Reduction, averages, model_and_twin
from classlens.analysis.labels import Label
from classlens.analysis.measured_store import MeasuredStore, Requirement, StoredBatch
from classlens.core.arrays import Array
from classlens.core.stats import Statistics
from classlens.tasks.tokens.conditions.registry import CLEAN

KEYS = ("condition", "tokens", "source")


def update(batch: StoredBatch) -> Reduction:
    """Share of tokens whose top-1 class is that of each source, by condition, tokens and source."""
    values: dict[Key, Array] = {}
    for condition in model_and_twin(batch.store):
        after = batch.block_site("top1", "resid_post", condition)
        same = {
            "previous": after == batch.block_input("top1", condition),
            "attention": after == batch.block_site("top1", "attn_out", condition),
            "mlp": after == batch.block_site("top1", "mlp_out", condition),
        }
        same["none"] = ~(same["previous"] | same["attention"] | same["mlp"])
        for tokens in batch.store.token_groups:
            for source, equal in same.items():
                values[condition, tokens, source] = batch.token_mean(equal, tokens, condition)
    return Reduction(values)


def compute(store: MeasuredStore, reduction: Reduction, statistics: Statistics) -> pd.DataFrame:
    return averages(KEYS, reduction.values, statistics, blocks=range(store.first_block, store.blocks))


EXPERIMENT = Experiment(
    name="composition",
    label="Residual composition",
    about="whether a token's top-1 class comes from the previous block, the attention, the MLP, or none",
    definition="Share of tokens whose top-1 class after a block is that of the block's input, of the attention's "
    "output, of the MLP's output (these may coincide), or of none of the three, which makes it a composition. The "
    "published figure tests the attention twice and never the MLP; here all three are tested.",
    keys=KEYS,
    needs=(
        Requirement(sites=("attn_out", "mlp_out", "resid_post")),
        Requirement(sites=("embed",), optional=True),
        TWIN,
    ),
    charts=(Lines(value="share of tokens", color="source", rows="tokens", where={"condition": (CLEAN,)}),),
    value_labels={
        "previous": Label("previous block"),
        "attention": Label("attention", palette.BLUE),
        "none": Label("none of the three", palette.BLACK),
    },
    update=update,
    compute=compute,
)
