"""The probability of the class along a change of the pixels in order of importance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import xarray as xr

from classlens.core.arrays import Array
from classlens.core.stats import Statistics, estimate
from classlens.store.schema import Variable
from classlens.tasks.evaluation.curves import PROBABILITY_AXES, mean, trapezoid
from classlens.tasks.evaluation.fills import FILLS, replaced
from classlens.tasks.evaluation.image_batch import ImageBatch, Importance
from classlens.tasks.evaluation.metric import CurvePoint, Metric, MetricAxes, Score

_STEPS = 20


class ProbabilityCurve(Metric):
    """The area below the probability of the class, in twenty steps of equally many pixels, the most important first.

    ``inserts`` says whether pixels of the image appear on the fill, or the fill takes the place of pixels. ``fill`` is
    a name in ``FILLS``.
    """

    variables: ClassVar[Mapping[str, Variable]] = {
        "probability": Variable(
            ("image", "changed"), np.dtype("float32"), np.nan, "probability of the class with this share changed"
        )
    }
    curve_axes = PROBABILITY_AXES
    inserts: ClassVar[bool]
    fill: ClassVar[str] = "mean"

    def coords(self, axes: MetricAxes) -> dict[str, Array]:
        return {"changed": np.arange(_STEPS + 1) / _STEPS}

    def passes(self, axes: MetricAxes) -> float:
        return _STEPS

    def measure(self, batch: ImageBatch, importance: Importance) -> dict[str, Array]:
        order, fill = batch.pixel_order(importance), FILLS[self.fill](batch)
        before, after = (fill, batch.pixels) if self.inserts else (batch.pixels, fill)
        unchanged = _STEPS if self.inserts else 0
        probability = np.empty((len(batch), _STEPS + 1), dtype=np.float32)
        for step in range(_STEPS + 1):
            if step == unchanged:
                probability[:, step] = batch.probability_unchanged
            else:
                pixels = replaced(before, order[:, : order.shape[1] * step // _STEPS], after)
                probability[:, step] = batch.probability(batch.run(pixels))
        return {"probability": probability}

    def scores(self, data: xr.Dataset, statistics: Statistics) -> Iterator[Score]:
        area = trapezoid(data["changed"].values)(data["probability"].values.astype(np.float64))
        yield mean("auc", area, statistics, better="higher" if self.inserts else "lower")

    def points(self, data: xr.Dataset, statistics: Statistics) -> Iterator[CurvePoint]:
        value, low, high, _ = estimate(data["probability"].values.astype(np.float64), statistics)
        for point in zip(data["changed"].values, value, low, high, strict=True):
            yield CurvePoint("probability", *map(float, point))
