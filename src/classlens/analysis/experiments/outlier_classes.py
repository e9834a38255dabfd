"""The classes on top of tokens with a large norm, beside those of ordinary tokens."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.charts import Dots
from classlens.analysis.experiment import Experiment, Key, Reduction, averages
from classlens.analysis.measured_store import MeasuredStore, Requirement, StoredBatch
from classlens.analysis.outliers import TOKEN_LABELS, token_kinds
from classlens.core.arrays import Array
from classlens.core.stats import Statistics, ratio

KEYS = ("tokens", "category", "class_name")
_SHOWN = 8
"""Classes that have rows."""


def update(batch: StoredBatch) -> Reduction:
    """Shares of the tokens of each kind that have each class on top after the last block, ``[image, category]``."""
    top1 = batch.values("top1", site="resid_post")[:, -1]
    values: dict[Key, Array] = {}
    kinds = token_kinds(batch, blocks=slice(-1, None))
    for tokens in TOKEN_LABELS:
        counts = np.zeros((len(top1), batch.store.num_classes))
        image, token = np.nonzero(kinds[tokens][:, 0])
        np.add.at(counts, (image, top1[image, token]), 1)
        values[(tokens,)] = ratio(counts, counts.sum(axis=1, keepdims=True))
    return Reduction(values)


def compute(store: MeasuredStore, reduction: Reduction, statistics: Statistics) -> pd.DataFrame:
    outlier = reduction.values["outlier",]
    affected = ~np.isnan(outlier[:, 0])
    shares = outlier[affected].sum(axis=0)
    shown = [category for category in np.argsort(-shares, kind="stable")[:_SHOWN] if shares[category]]
    # Both kinds have the same images, so that they can be compared.
    values: dict[Key, Array] = {
        (tokens, str(category)): np.where(affected, of_images[:, category], np.nan)[:, None]
        for (tokens,), of_images in reduction.values.items()
        for category in shown
    }
    table = averages(KEYS[:2], values, statistics)
    table["category"] = table["category"].astype(np.int64)
    names = store.class_names()
    table.insert(2, "class_name", [names[category] for category in table["category"]])
    return table


EXPERIMENT = Experiment(
    name="outlier_classes",
    label="The classes on top of tokens with a large norm",
    about="which classes outliers by norm have on top at the last block, beside ordinary tokens",
    definition="Share of an image's outliers, and of its other image tokens, that have the class on top after the last "
    f"block: the {_SHOWN} classes that outliers have on top most often, means over images that have outliers. A class "
    "that outliers have on top in many images, whatever these show, is a direction of the norm and not of the image.",
    keys=KEYS,
    needs=(Requirement(sites=("resid_post",), norms=True),),
    charts=(Dots(value="share of tokens", labels=("class_name",), rows="model", color="tokens"),),
    value_labels=TOKEN_LABELS,
    update=update,
    compute=compute,
)
