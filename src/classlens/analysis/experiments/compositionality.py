"""Whether a sublayer's output is more than one of its memories."""

from __future__ import annotations

import pandas as pd

from classlens.analysis.charts import Lines
from classlens.analysis.experiment import TWIN, Experiment, Key, Reduction, averages, model_and_twin
from classlens.analysis.measured_store import MeasuredStore, Requirement, StoredBatch
from classlens.core.arrays import Array
from classlens.core.stats import Statistics

KEYS = ("condition", "sublayer", "tokens", "counted")


def update(batch: StoredBatch) -> Reduction:
    """Shares of tokens that match one of their memories, and that match none, by condition, sublayer and tokens."""
    values: dict[Key, Array] = {}
    for condition in model_and_twin(batch.store):
        for sublayer in ("attn", "mlp"):
            matches = batch.values("memory_match", condition, sublayer=sublayer) == 1
            for tokens in batch.store.token_groups:
                share = batch.token_mean(matches, tokens, condition)
                values[condition, sublayer, tokens, "composition"] = 1 - share
                values[condition, sublayer, tokens, "match"] = share
    return Reduction(values)


def compute(store: MeasuredStore, reduction: Reduction, statistics: Statistics) -> pd.DataFrame:
    return averages(KEYS, reduction.values, statistics, blocks=range(store.blocks))


EXPERIMENT = Experiment(
    name="compositionality",
    label="Compositionality of memories",
    about="how often a sublayer's output is none of the token's strongest memories",
    definition="Share of tokens where the top-1 class of a sublayer's output is not the top-1 class of any of the "
    "token's 5 strongest memories (composition), and its complement (match), which the published figure shows.",
    keys=KEYS,
    needs=(Requirement(memories=True), TWIN),
    charts=(
        Lines(
            value="share of tokens whose output is a composition",
            rows="sublayer",
            where={"counted": ("composition",)},
            dash="condition",
        ),
    ),
    update=update,
    compute=compute,
)
