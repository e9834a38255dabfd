"""Class scores of the tokens of the largest norm at the end, and the model without them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.charts import Dots
from classlens.analysis.experiment import Experiment, Key, Reduction, averages, join_changes, mean_of
from classlens.analysis.experiments.identifiability import LABELS, accuracy
from classlens.analysis.labels import Label
from classlens.analysis.measured_store import MeasuredStore, Requirement, StoredBatch
from classlens.analysis.outliers import REMOVED, TOKEN_LABELS, token_kinds
from classlens.core.arrays import Array
from classlens.core.stats import Statistics
from classlens.tasks.tokens.conditions.registry import CLEAN

KEYS = ("condition", "tokens", "measure")


def update(batch: StoredBatch) -> Reduction:
    """Rates of the image tokens with and without outliers, of images that have some after the last block."""
    last = {kind: chosen[:, 0] for kind, chosen in token_kinds(batch, blocks=slice(-1, None)).items()}
    affected = np.asarray(last["outlier"].any(axis=1))
    kinds = {"image": last["ordinary"] | last["outlier"], "ordinary": last["ordinary"], "outlier": last["outlier"]}
    values: dict[Key, Array] = {(CLEAN, "outlier", "images_with_outliers"): affected[:, None].astype(np.float64)}
    for condition in (CLEAN, REMOVED):
        if not batch.store.has(condition):
            continue
        shown = ("image", "ordinary", "outlier") if condition == CLEAN else ("ordinary",)
        known = affected & batch.measured(condition)
        on_top = batch.values("rank", condition, site="resid_post")[:, -1] == 0
        predicted = batch.values("top1", condition, site="resid_post")[:, -1]
        predicted = predicted == batch.values("prediction", condition)[:, None]
        rates = {
            (condition, tokens, measure): mean_of(hits, kinds[tokens])[:, None]
            for tokens in shown
            for measure, hits in (("tokens_identifiable", on_top), ("tokens_predicted", predicted))
        }
        rates[condition, shown[0], "accuracy"] = accuracy(batch, condition)
        values |= {key: np.where(known[:, None], of_images, np.nan) for key, of_images in rates.items()}
    return Reduction(values)


def compute(store: MeasuredStore, reduction: Reduction, statistics: Statistics) -> pd.DataFrame:
    values = {key: of_images for key, of_images in reduction.values.items() if not np.isnan(of_images).all()}
    table = averages(KEYS, values, statistics)
    before = {key: "image" if key[2] == "accuracy" else key[1] for key in values if key[0] == REMOVED}
    unedited = {key: (CLEAN, tokens, key[2]) for key, tokens in before.items()}
    return join_changes(table, values, unedited, statistics)


EXPERIMENT = Experiment(
    name="outliers",
    label="Tokens of the largest norm, and the model without them",
    about="what outliers by norm say at the last block; rates and accuracy when they are dropped",
    definition="Outliers are image tokens whose norm after the last block is above the median of the image's tokens by "
    "more than 5 times their median absolute deviation. images_with_outliers: share of images that have some; all "
    "other rows are means over these images. tokens_identifiable: share of the tokens with the class of interest on "
    "top at the last block; tokens_predicted: with the class that the model predicts. outliers_removed drops the "
    "outliers after position embeddings; change: with them dropped minus not, of the same tokens and images, with a "
    "two-sided permutation p value (signs flipped over images).",
    keys=KEYS,
    needs=(
        Requirement(sites=("resid_post",), norms=True),
        Requirement(REMOVED, optional=True),
        Requirement(labels=True, optional=True),
    ),
    charts=(
        Dots(
            value="share",
            labels=("model", "condition"),
            rows="measure",
            color="tokens",
            where={"measure": ("tokens_identifiable", "tokens_predicted", "accuracy")},
        ),
    ),
    value_labels={
        **LABELS,
        **TOKEN_LABELS,
        "tokens_predicted": Label("tokens with the prediction on top"),
        "images_with_outliers": Label("images with outliers"),
    },
    update=update,
    compute=compute,
)
