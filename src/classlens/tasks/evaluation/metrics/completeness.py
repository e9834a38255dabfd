"""Sanity check: do contributions sum to the logit?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from classlens.core.arrays import Array
from classlens.core.stats import Statistics
from classlens.store.schema import Variable
from classlens.tasks.evaluation.curves import mean
from classlens.tasks.evaluation.image_batch import ImageBatch, Importance
from classlens.tasks.evaluation.metric import Metric, Score


class Completeness(Metric):
    """Absolute difference between the sum of all contributions and the logit, in logits.

    Embedding, attention heads, MLPs and biases add up to the logit exactly, but for rounding.
    """

    label = "Completeness"
    about = "difference between the sum of all contributions and the logit"
    variables = {
        "missing": Variable(
            ("image",), np.dtype("float32"), np.nan, "|embed + attention + mlp + bias - logit|, in logits"
        )
    }
    measures = {"missing_logits": "attribution, missing logits"}
    rounding_error = True

    def applies_to(self, importance: Importance) -> bool:
        return importance.complete

    def measure(self, batch: ImageBatch, importance: Importance) -> dict[str, Array]:
        parts = batch.trace.attribution(batch.target)
        total = parts["embed"] + parts["attention"].sum(("block", "head")) + parts["mlp"].sum("block") + parts["bias"]
        return {"missing": abs(total - parts["logit"]).values.astype(np.float32)}

    def scores(self, data: xr.Dataset, statistics: Statistics) -> Iterator[Score]:
        yield mean("missing_logits", data["missing"].values, statistics, better="lower")


METRIC = Completeness()
