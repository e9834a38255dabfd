"""Sanity check: do maps change with the class?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import xarray as xr

from classlens.core.arrays import Array
from classlens.core.stats import Statistics
from classlens.store.schema import Variable
from classlens.tasks.evaluation.correlation import CORRELATION_NOTE, rank_correlation
from classlens.tasks.evaluation.curves import mean
from classlens.tasks.evaluation.image_batch import ImageBatch, Importance
from classlens.tasks.evaluation.metric import Metric, Score


class ClassSensitivity(Metric):
    """One minus Spearman's correlation of the maps for the image's class and for another class, drawn for each image.

    0 for a method that ignores the class; 1 for two unrelated maps. Source: the random logit test of Sixt, Granz and
    Landgraf, *When Explanations Lie*, ICML 2020, with rank correlation.
    """

    label = "Class sensitivity"
    about = "one minus the rank correlation of the maps of two classes"
    variables = {"correlation": Variable(("image",), np.dtype("float32"), np.nan, CORRELATION_NOTE)}
    measures = {"score": "class sensitivity"}

    def applies_to(self, importance: Importance) -> bool:
        return importance.live and not importance.drawn

    def measure(self, batch: ImageBatch, importance: Importance) -> dict[str, Array]:
        # Drawn by the index of the image, so that the other class does not depend on the batch.
        classes = batch.lens.view.num_classes
        seeds = [[batch.settings.seed, batch.first + number] for number in range(len(batch))]
        steps = [int(np.random.default_rng(seed).integers(1, max(2, classes))) for seed in seeds]
        other = (batch.target + torch.tensor(steps)) % classes
        correlation = rank_correlation(batch.maps(importance), importance.explain(batch.trace, other))
        return {"correlation": correlation.astype(np.float32)}

    def scores(self, data: xr.Dataset, statistics: Statistics) -> Iterator[Score]:
        yield mean("score", 1 - data["correlation"].values, statistics, better="")


METRIC = ClassSensitivity()
