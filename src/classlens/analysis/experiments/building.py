"""Share of tokens that each sublayer moves toward their class."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.charts import Lines
from classlens.analysis.experiment import TWIN, Experiment, Key, Reduction, averages, model_and_twin
from classlens.analysis.labels import Label
from classlens.analysis.measured_store import MeasuredStore, Requirement, StoredBatch
from classlens.core.arrays import Array
from classlens.core.stats import Statistics
from classlens.tasks.tokens.conditions.registry import CLEAN

KEYS = ("condition", "relative_to", "sublayer", "tokens")


def rises(batch: StoredBatch, sublayer: str, relative_to: str, condition: str = CLEAN) -> Array:
    """Whether the logit of the class is larger in a sublayer's output than in its input: image, block, token.

    ``block_input`` takes the block's input for both sublayers, as the published figures do. ``layer_input`` takes the
    stream after the attention for the MLP, as the paper's text does.
    """
    after_attention = sublayer == "mlp" and relative_to == "layer_input"
    if after_attention:
        before = batch.block_site("logit", "resid_mid", condition)
    else:
        before = batch.block_input("logit", condition)
    return np.asarray(batch.block_site("logit", f"{sublayer}_out", condition) > before)


def update(batch: StoredBatch) -> Reduction:
    """Share of tokens whose logit rises, by condition, input, sublayer and tokens."""
    store, values = batch.store, dict[Key, Array]()
    inputs = ("block_input", "layer_input") if "resid_mid" in store.attrs["sites"] else ("block_input",)
    for condition in model_and_twin(store):
        for relative_to in inputs:
            for sublayer in ("attn", "mlp"):
                rising = rises(batch, sublayer, relative_to, condition)
                for tokens in store.token_groups:
                    values[condition, relative_to, sublayer, tokens] = batch.token_mean(rising, tokens, condition)
    return Reduction(values)


def compute(store: MeasuredStore, reduction: Reduction, statistics: Statistics) -> pd.DataFrame:
    return averages(KEYS, reduction.values, statistics, blocks=range(store.first_block, store.blocks))


def _chart(relative_to: str, layer: str, suffix: str = "") -> Lines:
    return Lines(
        value=f"share of tokens whose class logit is larger than in the {layer} input",
        suffix=suffix,
        rows="sublayer",
        where={"relative_to": (relative_to,)},
        dash="condition",
    )


EXPERIMENT = Experiment(
    name="building",
    label="Class similarity change by attention and MLP",
    about="how often attention and MLP write more of the class than they read",
    definition="Share of tokens whose logit of the class is larger in the output of a sublayer than in its input: the "
    "block's input for both sublayers (published figures), or the layer's own (the paper's text), which for the MLP is "
    "the stream after the attention.",
    keys=KEYS,
    needs=(
        Requirement(sites=("attn_out", "mlp_out", "resid_post")),
        Requirement(sites=("resid_mid",), optional=True),
        Requirement(sites=("embed",), optional=True),
        TWIN,
    ),
    charts=(_chart("block_input", "block's"), _chart("layer_input", "layer's", "layer_input")),
    value_labels={
        "block_input": Label("against the block's input"),
        "layer_input": Label("against the layer's input"),
    },
    update=update,
    compute=compute,
)
