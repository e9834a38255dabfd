"""Pixel masking: how accuracy falls as pixels are painted over in order of importance."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from classlens.core.arrays import Array
from classlens.core.stats import Statistics
from classlens.store.schema import Variable
from classlens.tasks.evaluation.curves import ACCURACY_AXES, DIRECTIONS, accuracies, areas, trapezoid
from classlens.tasks.evaluation.image_batch import ImageBatch, Importance
from classlens.tasks.evaluation.metric import CurvePoint, Metric, MetricAxes, Score

# Masked shares of the pixels, in tenths.
_TENTHS = range(10)


class Masking(Metric):
    """Accuracy with 10 % to 90 % of the pixels masked, the least important first (``negative``) or the most important
    first (``positive``).

    The map is interpolated bilinearly to the pixels. Masked pixels get the mean color of the model's normalization, or
    that of the image for a transform without normalization; subclasses paint otherwise. Source: the perturbation test
    of Chefer, Gur and Wolf, *Transformer Interpretability Beyond Attention Visualization*, CVPR 2021, section 4. Their
    code masks with black, as ``masking_black`` does.
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

    def coords(self, axes: MetricAxes) -> dict[str, Array]:
        return {"order": np.array(DIRECTIONS), "masked": np.array([tenth / 10 for tenth in _TENTHS])}

    def passes(self, axes: MetricAxes) -> float:
        return prod(map(len, self.coords(axes).values()))

    def measure(self, batch: ImageBatch, importance: Importance) -> dict[str, Array]:
        pixels = batch.pixels
        values = batch.pixel_maps(importance).flatten(1)
        most_first = values.argsort(dim=1, descending=True, stable=True)
        paint = self.paint(batch).flatten(2)
        image = torch.arange(len(batch))
        correct = np.empty((len(batch), len(DIRECTIONS), len(_TENTHS)), dtype=np.int8)
        correct[:, :, 0] = batch.correct_unchanged[:, None]
        for number, order in enumerate((most_first.flip(1), most_first)):
            for tenth in _TENTHS[1:]:
                indices = order[:, : order.shape[1] * tenth // 10]
                mask = torch.zeros_like(values, dtype=torch.bool).scatter_(1, indices, True)
                masked = torch.where(mask[:, None], paint, pixels.flatten(2)).view_as(pixels)
                correct[:, number, tenth] = batch.correct(batch.run(masked), image)
        return {"correct": correct}

    def paint(self, batch: ImageBatch) -> Float[Tensor, "image channel height width"]:
        """Colors of masked pixels."""
        if batch.lens.preprocessing.mean is None:
            return batch.pixels.mean(dim=(2, 3), keepdim=True).expand_as(batch.pixels)
        return torch.zeros_like(batch.pixels)

    def scores(self, data: xr.Dataset, statistics: Statistics) -> Iterator[Score]:
        data = data.isel(masked=slice(1, None))  # unmasked images are the same for every method
        yield from areas(data, {"auc": trapezoid(data["masked"].values)}, statistics)

    def points(self, data: xr.Dataset, statistics: Statistics) -> Iterator[CurvePoint]:
        yield from accuracies(data, data["masked"].values, statistics)


METRIC = Masking()
