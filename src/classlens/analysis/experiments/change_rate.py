"""How often a token moves toward its class from one block to the next."""

from __future__ import annotations

import pandas as pd

from classlens.analysis.charts import Lines
from classlens.analysis.experiment import TWIN, Array, Experiment, Found, Key, averages, conditions
from classlens.analysis.store_reader import Need, Part, StoreReader
from classlens.core.stats import Statistics

KEYS = ("condition", "tokens")


def update(part: Part) -> Found:
    values: dict[Key, Array] = {}
    for condition in conditions(part.store):
        rises = part.leaving("logit", "resid_post", condition) > part.entering("logit", condition)
        for tokens in part.store.token_groups:
            values[condition, tokens] = part.mean(rises, tokens, condition)
    return Found(values)


def compute(store: StoreReader, found: Found, how: Statistics) -> pd.DataFrame:
    return averages(KEYS, found.values, how, blocks=range(store.first_block, store.blocks))


EXPERIMENT = Experiment(
    name="change_rate",
    title="Class similarity change rate between blocks",
    about="Share of tokens whose logit of the class rises from one block's output to the next one's; at the first "
    "block, from the embeddings.",
    keys=KEYS,
    needs=(Need(sites=("resid_post",)), TWIN, Need(sites=("embed",), optional=True)),
    charts=(Lines(value="share of tokens whose class logit rises", dash="condition"),),
    update=update,
    compute=compute,
)
