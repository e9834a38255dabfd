"""Norms of tokens over blocks, and what tokens with a large norm say."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.charts import Lines
from classlens.analysis.experiment import TWIN, Experiment, Key, Reduction, averages, mean_of, model_and_twin
from classlens.analysis.labels import Label
from classlens.analysis.measured_store import MeasuredStore, Requirement, StoredBatch
from classlens.analysis.outliers import TOKEN_LABELS, token_kinds
from classlens.core.arrays import Array
from classlens.core.stats import Statistics
from classlens.tasks.tokens.conditions.registry import CLEAN
from classlens.tasks.tokens.schema import NORM

KEYS = ("condition", "tokens", "measure")


def update(batch: StoredBatch) -> Reduction:
    """Norms and class scores of each kind of token, and the share of outliers, by condition."""
    values: dict[Key, Array] = {}
    for condition in model_and_twin(batch.store):
        kinds = token_kinds(batch, condition)
        on_top = batch.values("rank", condition, site="resid_post") == 0
        predicted = batch.values("top1", condition, site="resid_post")
        predicted = predicted == batch.values("prediction", condition)[:, None, None]
        for tokens, chosen in kinds.items():
            values[condition, tokens, "norm"] = mean_of(batch.values(NORM, condition), chosen)
            values[condition, tokens, "share_on_top"] = mean_of(on_top, chosen)
            values[condition, tokens, "share_predicted"] = mean_of(predicted, chosen)
        outlier = kinds["outlier"]
        values[condition, "outlier", "share_of_tokens"] = mean_of(outlier, outlier | kinds["ordinary"])
        known = batch.measured(condition)[:, None]
        values[condition, "outlier", "share_of_images"] = np.where(known, outlier.any(axis=-1), np.nan)
    return Reduction(values)


def compute(store: MeasuredStore, reduction: Reduction, statistics: Statistics) -> pd.DataFrame:
    table = averages(KEYS, reduction.values, statistics, blocks=range(store.blocks))
    return table[table["images"] > 0].reset_index(drop=True)


EXPERIMENT = Experiment(
    name="norms",
    label="Norms of tokens",
    about="norms of tokens block by block, the share of outliers, and how often they have the class on top",
    definition="Mean L2 norm of tokens of the residual stream after each block (norm). An image token is an outlier "
    "after a block where its norm is above the median of the image's tokens by more than 5 times their median absolute "
    "deviation; share_of_tokens: share of image tokens that are; share_of_images: share of images that have one. "
    "share_on_top: share of the tokens with the class of interest on top; share_predicted: share with the class that "
    "the model predicts. Images without an outlier after a block have no value there. Source of such tokens: Darcet et "
    "al., Vision Transformers Need Registers, ICLR 2024.",
    keys=KEYS,
    needs=(Requirement(sites=("resid_post",), norms=True), TWIN, Requirement(cls=True, optional=True)),
    charts=(
        Lines(value="norm", where={"measure": ("norm",), "condition": (CLEAN,)}, unit_range=False),
        Lines(
            value="share of tokens with the class on top",
            suffix="on_top",
            where={"measure": ("share_on_top",), "condition": (CLEAN,)},
        ),
    ),
    value_labels={
        **TOKEN_LABELS,
        "share_on_top": Label("share with the class on top"),
        "share_predicted": Label("share with the prediction on top"),
        "share_of_tokens": Label("share of image tokens"),
        "share_of_images": Label("share of images"),
    },
    update=update,
    compute=compute,
)
