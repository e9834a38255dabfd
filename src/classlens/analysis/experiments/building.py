"""Which sublayer moves tokens toward their class."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.charts import Lines
from classlens.analysis.experiment import TWIN, Array, Experiment, Found, Key, averages, conditions
from classlens.analysis.store_reader import Need, Part, StoreReader
from classlens.core.stats import Statistics

KEYS = ("condition", "relative_to", "sublayer", "tokens")


def rises(part: Part, sublayer: str, relative_to: str, condition: str = "clean") -> Array:
    """Whether the logit of the class is larger in what a sublayer adds than in its input: image, block, token.

    ``block_input``: of both sublayers the block's input, as the published figures; ``layer_input``: the MLP's is the
    stream after the attention, as the paper's text.
    """
    between = sublayer == "mlp" and relative_to == "layer_input"
    before = part.leaving("logit", "resid_mid", condition) if between else part.entering("logit", condition)
    return np.asarray(part.leaving("logit", f"{sublayer}_out", condition) > before)


def update(part: Part) -> Found:
    store, values = part.store, dict[Key, Array]()
    kinds = ("block_input", "layer_input") if "resid_mid" in store.attrs["sites"] else ("block_input",)
    for condition in conditions(store):
        for relative_to in kinds:
            for sublayer in ("attn", "mlp"):
                found = rises(part, sublayer, relative_to, condition)
                for tokens in store.token_groups:
                    values[condition, relative_to, sublayer, tokens] = part.mean(found, tokens, condition)
    return Found(values)


def compute(store: StoreReader, found: Found, how: Statistics) -> pd.DataFrame:
    return averages(KEYS, found.values, how, blocks=range(store.first_block, store.blocks))


_VALUE = "share of tokens whose class logit is larger than in the {} input"

EXPERIMENT = Experiment(
    name="building",
    title="Class similarity change by attention and MLP",
    about="Share of tokens whose logit of the class is larger in what the sublayer adds than in its input: the "
    "block's input for both sublayers (published figures), or the layer's own (the paper's text), which for "
    "the MLP is the stream after the attention.",
    keys=KEYS,
    needs=(
        Need(sites=("attn_out", "mlp_out", "resid_post")),
        Need(sites=("resid_mid",), optional=True),
        Need(sites=("embed",), optional=True),
        TWIN,
    ),
    charts=(
        Lines(
            value=_VALUE.format("block's"), rows="sublayer", where={"relative_to": ("block_input",)}, dash="condition"
        ),
        Lines(
            value=_VALUE.format("layer's"),
            suffix="layer_input",
            rows="sublayer",
            where={"relative_to": ("layer_input",)},
            dash="condition",
        ),
    ),
    update=update,
    compute=compute,
)
