"""Share of tokens that move toward their class from one block to the next."""

from __future__ import annotations

import pandas as pd

from classlens.analysis.charts import Lines
from classlens.analysis.experiment import TWIN, Experiment, Key, Reduction, averages, model_and_twin
from classlens.analysis.measured_store import MeasuredStore, Requirement, StoredBatch
from classlens.core.arrays import Array
from classlens.core.stats import Statistics

KEYS = ("condition", "tokens")


def update(batch: StoredBatch) -> Reduction:
    """Share of tokens whose logit rises in a block, by condition and tokens."""
    values: dict[Key, Array] = {}
    for condition in model_and_twin(batch.store):
        rises = batch.block_site("logit", "resid_post", condition) > batch.block_input("logit", condition)
        for tokens in batch.store.token_groups:
            values[condition, tokens] = batch.token_mean(rises, tokens, condition)
    return Reduction(values)


def compute(store: MeasuredStore, reduction: Reduction, statistics: Statistics) -> pd.DataFrame:
    return averages(KEYS, reduction.values, statistics, blocks=range(store.first_block, store.blocks))


EXPERIMENT = Experiment(
    name="change_rate",
    label="Class similarity change rate between blocks",
    about="how often a block raises a token's class logit",
    definition="Share of tokens whose logit of the class rises from one block's output to the next one's; at the "
    "first block, from the embeddings.",
    keys=KEYS,
    needs=(Requirement(sites=("resid_post",)), TWIN, Requirement(sites=("embed",), optional=True)),
    charts=(Lines(value="share of tokens whose class logit rises", dash="condition"),),
    update=update,
    compute=compute,
)
