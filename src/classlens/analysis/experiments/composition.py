"""Where the residual stream's top-1 class comes from."""

from __future__ import annotations

import pandas as pd

from classlens.analysis.charts import Lines
from classlens.analysis.experiment import TWIN, Array, Experiment, Found, Key, averages, conditions
from classlens.analysis.store_reader import Need, Part, StoreReader
from classlens.core.stats import Statistics

KEYS = ("condition", "tokens", "source")


def update(part: Part) -> Found:
    values: dict[Key, Array] = {}
    for condition in conditions(part.store):
        after = part.leaving("top1", "resid_post", condition)
        same = {
            "previous": after == part.entering("top1", condition),
            "attention": after == part.leaving("top1", "attn_out", condition),
            "mlp": after == part.leaving("top1", "mlp_out", condition),
        }
        same["none"] = ~(same["previous"] | same["attention"] | same["mlp"])
        for tokens in part.store.token_groups:
            for source, hit in same.items():
                values[condition, tokens, source] = part.mean(hit, tokens, condition)
    return Found(values)


def compute(store: StoreReader, found: Found, how: Statistics) -> pd.DataFrame:
    return averages(KEYS, found.values, how, blocks=range(store.first_block, store.blocks))


EXPERIMENT = Experiment(
    name="composition",
    title="Residual composition",
    about="Share of tokens whose top-1 class after a block is that of the block's input, of the attention's output, "
    "of the MLP's output (these may coincide), or of none of the three, which makes it a composition. The "
    "published figure tests the attention twice and never the MLP; here all three are tested.",
    keys=KEYS,
    needs=(
        Need(sites=("attn_out", "mlp_out", "resid_post")),
        Need(sites=("embed",), optional=True),
        TWIN,
    ),
    charts=(Lines(value="share of tokens", color="source", rows="tokens", where={"condition": ("clean",)}),),
    update=update,
    compute=compute,
)
