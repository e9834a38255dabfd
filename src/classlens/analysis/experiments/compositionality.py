"""Whether a sublayer's output is more than one of its memories."""

from __future__ import annotations

import pandas as pd

from classlens.analysis.charts import Lines
from classlens.analysis.experiment import TWIN, Array, Experiment, Found, Key, averages, conditions
from classlens.analysis.store_reader import Need, Part, StoreReader
from classlens.core.stats import Statistics

KEYS = ("condition", "sublayer", "tokens", "counted")


def update(part: Part) -> Found:
    values: dict[Key, Array] = {}
    for condition in conditions(part.store):
        for sublayer in ("attn", "mlp"):
            match = part.of("memory_match", condition, sublayer=sublayer) == 1
            for tokens in part.store.token_groups:
                share = part.mean(match, tokens, condition)
                values[condition, sublayer, tokens, "composition"] = 1 - share
                values[condition, sublayer, tokens, "match"] = share
    return Found(values)


def compute(store: StoreReader, found: Found, how: Statistics) -> pd.DataFrame:
    return averages(KEYS, found.values, how, blocks=range(store.blocks))


EXPERIMENT = Experiment(
    name="compositionality",
    title="Compositionality of memories",
    about="Share of tokens where the top-1 class of a sublayer's output is not the top-1 class of any of the "
    "token's 5 strongest memories (composition), and its complement (match), which the published figure "
    "shows.",
    keys=KEYS,
    needs=(Need(memories=True), TWIN),
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
