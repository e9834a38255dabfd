"""Sanity check: do maps change as the weights become random?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from classlens.core.arrays import Array
from classlens.core.stats import Statistics, estimate
from classlens.store.schema import Variable
from classlens.tasks.evaluation.correlation import CORRELATION_NOTE, rank_correlation
from classlens.tasks.evaluation.curves import mean
from classlens.tasks.evaluation.image_batch import ImageBatch, Importance
from classlens.tasks.evaluation.metric import CurveAxes, CurvePoint, Metric, MetricAxes, Score


class Randomization(Metric):
    """Spearman's rank correlation with the map of the trained model, while weights become random from the head down.

    Maps are for the class of the image. The correlation of a method that depends on the trained weights falls to 0.
    Source: the cascading randomization of Adebayo et al., *Sanity Checks for Saliency Maps*, NeurIPS 2018.
    """

    label = "Randomization"
    about = "rank correlation of maps while weights become random, head first"
    variables = {
        "correlation": Variable(("image", "randomized"), np.dtype("float32"), np.nan, CORRELATION_NOTE),
    }
    measures = {
        "correlation_head_random": "correlation, head random",
        "correlation_all_random": "correlation, all random",
    }
    curves = {"correlation": "weights made random, head first"}
    curve_axes = CurveAxes(
        "share of stages made random", "rank correlation with the trained model's map", unit_range=False
    )
    needs_random_twin = True

    def applies_to(self, importance: Importance) -> bool:
        return importance.live and not importance.drawn

    def coords(self, axes: MetricAxes) -> dict[str, Array]:
        stages = axes.blocks + 2
        return {"randomized": np.arange(1, stages + 1)}

    def passes(self, axes: MetricAxes) -> float:
        return 3 * (axes.blocks + 2)  # a method may go back through the model, at the cost of two passes

    def measure(self, batch: ImageBatch, importance: Importance) -> dict[str, Array]:
        maps, cascade = batch.maps(importance), batch.cascade()
        correlations = []
        for stage in range(1, cascade.stages + 1):
            trace = cascade.at(stage).trace(batch.pixels, batch_size=len(batch))
            correlations.append(rank_correlation(maps, importance.explain(trace, batch.target)))
        return {"correlation": np.stack(correlations, axis=1).astype(np.float32)}

    def scores(self, data: xr.Dataset, statistics: Statistics) -> Iterator[Score]:
        for name, stage in (("head_random", 0), ("all_random", -1)):
            yield mean(f"correlation_{name}", data["correlation"].values[:, stage], statistics, better="")

    def points(self, data: xr.Dataset, statistics: Statistics) -> Iterator[CurvePoint]:
        value, low, high, _ = estimate(data["correlation"].values.astype(float), statistics)
        stages = data["randomized"].values
        for point in zip(stages / len(stages), value, low, high, strict=True):
            yield CurvePoint("correlation", *map(float, point))


METRIC = Randomization()
