"""Pixel masking: how accuracy falls as pixels are painted over in order of importance."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import ClassVar

import numpy as np
import torch
import xarray as xr

from classlens.core.arrays import Array
from classlens.core.stats import Statistics
from classlens.store.schema import Variable
from classlens.tasks.evaluation.curves import ACCURACY_AXES, DIRECTIONS, areas, mean_points, trapezoid
from classlens.tasks.evaluation.fills import FILLS, replaced
from classlens.tasks.evaluation.image_batch import ImageBatch, Importance
from classlens.tasks.evaluation.metric import CurvePoint, Metric, MetricAxes, Score

# Masked shares of the pixels, in tenths.
_TENTHS = range(10)


class Masking(Metric):
    """Accuracy with 10 % to 90 % of the pixels masked, the least important first (``negative``) or the most important
    first (``positive``).

    The map is interpolated bilinearly to the pixels. Masked pixels get the mean color; ``fill``, a name in ``FILLS``,
    is another color in subclasses. Source: the perturbation test of Chefer, Gur and Wolf, *Transformer Interpretability
    Beyond Attention Visualization*, CVPR 2021, section 4. Their published code masks with black, as ``masking_black``
    does.
    """

    label = "Masking"
    about = "accuracy as pixels are painted over in order of importance"
    variables = {
        "correct": Variable(
            ("image", "order", "masked"),
            np.dtype("int8"),
            -1,
            "1 where the prediction is correct with this share of the pixels masked, -1 without a class",
        )
    }
    measures = {"negative_auc": "masking, least first, AUC", "positive_auc": "masking, most first, AUC"}
    curves = {
        "negative": "pixels masked, least important first",
        "positive": "pixels masked, most important first",
    }
    curve_axes = ACCURACY_AXES
    fill: ClassVar[str] = "mean"

    def coords(self, axes: MetricAxes) -> dict[str, Array]:
        return {"order": np.array(DIRECTIONS), "masked": np.array([tenth / 10 for tenth in _TENTHS])}

    def passes(self, axes: MetricAxes) -> float:
        return prod(map(len, self.coords(axes).values()))

    def measure(self, batch: ImageBatch, importance: Importance) -> dict[str, Array]:
        most_first, fill = batch.pixel_order(importance), FILLS[self.fill](batch)
        image = torch.arange(len(batch))
        correct = np.empty((len(batch), len(DIRECTIONS), len(_TENTHS)), dtype=np.int8)
        correct[:, :, 0] = batch.correct_unchanged[:, None]
        for number, order in enumerate((most_first.flip(1), most_first)):
            for tenth in _TENTHS[1:]:
                masked = replaced(batch.pixels, order[:, : order.shape[1] * tenth // 10], fill)
                correct[:, number, tenth] = batch.correct(batch.run(masked), image)
        return {"correct": correct}

    def scores(self, data: xr.Dataset, statistics: Statistics) -> Iterator[Score]:
        data = data.isel(masked=slice(1, None))  # unmasked images are the same for every method
        yield from areas(data, {"auc": trapezoid(data["masked"].values)}, statistics)

    def points(self, data: xr.Dataset, statistics: Statistics) -> Iterator[CurvePoint]:
        yield from mean_points(data, data["masked"].values, statistics)


class BlackMasking(Masking):
    """As ``masking``, with masked pixels black."""

    label = "Masking with black"
    about = "as masking, with black pixels"
    measures = {"negative_auc": "black, least first, AUC", "positive_auc": "black, most first, AUC"}
    curves = {
        "negative": "black pixels, least important first",
        "positive": "black pixels, most important first",
    }
    fill = "black"
    by_name_only = True


class BlurMasking(Masking):
    """As ``masking``, with masked pixels from the blurred image."""

    label = "Masking with blur"
    about = "as masking, with blurred pixels"
    measures = {"negative_auc": "blur, least first, AUC", "positive_auc": "blur, most first, AUC"}
    curves = {
        "negative": "blurred pixels, least important first",
        "positive": "blurred pixels, most important first",
    }
    fill = "blur"
    by_name_only = True


METRIC, BLACK, BLUR = Masking(), BlackMasking(), BlurMasking()
