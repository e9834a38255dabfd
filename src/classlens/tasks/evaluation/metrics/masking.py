"""Pixel masking: how accuracy falls as pixels are painted over in order of importance."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from classlens.core.arrays import Array
from classlens.core.stats import Statistics
from classlens.lens.lens import Lens
from classlens.models.view import Tokens
from classlens.store.schema import Variable
from classlens.tasks.evaluation.curves import DIRECTIONS, accuracies, areas, directions, trapezoid
from classlens.tasks.evaluation.image_batch import EvaluationSettings, ImageBatch, Importance
from classlens.tasks.evaluation.metric import CurveAxes, CurvePoint, Metric, MetricSchema, Score

# Masked shares in tenths: 0, 0.1 … 0.9.
_TENTHS = range(10)
# Bits kept when a map is rounded.
_BITS = 20


class Masking(Metric):
    """Paint over 10 % to 90 % of the pixels, the least important first (``negative``) or the most important ones
    (``positive``), and see how often the class is still on top.

    The map is laid over the pixels bilinearly; masked pixels get the mean color of the model's normalization (that of
    the image where the transform has none). Source: the perturbation test of Chefer, Gur and Wolf, *Transformer
    Interpretability Beyond Attention Visualization*, CVPR 2021, section 4; their code paints pixels black (0 before
    normalization), which lies further from what a model has seen, so their numbers are not the same measurement.
    """

    label = "Masking"
    about = "accuracy as pixels are painted over in order of importance"
    measures = {"negative_auc": "masking, least first, AUC", "positive_auc": "masking, most first, AUC"}
    curves = {
        "negative": "pixels masked, least important first",
        "positive": "pixels masked, most important first",
    }
    curve_axes = CurveAxes("share removed or masked", "top-1 accuracy")

    def schema(self, lens: Lens, tokens: Tokens, importance: Importance, settings: EvaluationSettings) -> MetricSchema:
        note = "1 where the class is on top with so large a share of the pixels masked, -1 without a class"
        correct = Variable(("image", "order", "masked"), np.dtype("int8"), -1, note)
        masked = np.array([tenth / 10 for tenth in _TENTHS])
        return MetricSchema(
            {"correct": correct},
            {"order": len(DIRECTIONS), "masked": len(masked)},
            {"order": np.array(DIRECTIONS), "masked": masked},
        )

    def measure(self, batch: ImageBatch, importance: Importance) -> dict[str, Array]:
        pixels = batch.pixels
        values = upsample(batch.maps(importance), batch.grid, batch.size).flatten(1)
        best = values.argsort(dim=1, descending=True, stable=True)
        mean = torch.zeros(len(batch), pixels.shape[1], 1, dtype=pixels.dtype)
        if batch.lens.preprocessing.mean is None:
            mean = pixels.flatten(2).mean(dim=2, keepdim=True)
        image = torch.arange(len(batch))
        correct = np.empty((len(batch), len(DIRECTIONS), len(_TENTHS)), dtype=np.int8)
        correct[:, :, 0] = batch.correct_unchanged[:, None]
        for number, order in enumerate((best.flip(1), best)):
            for tenth in _TENTHS[1:]:
                gone = order[:, : order.shape[1] * tenth // 10]
                covered = torch.zeros_like(values, dtype=torch.bool).scatter_(1, gone, True)
                shown = torch.where(covered[:, None], mean, pixels.flatten(2)).view_as(pixels)
                correct[:, number, tenth] = batch.correct(batch.run(shown), image)
        return {"correct": correct}

    def scores(self, data: xr.Dataset, statistics: Statistics) -> Iterator[Score]:
        for direction, values in directions(data["correct"].values.astype(float), list(data["order"].values)):
            # From 10 % on: the unmasked images are the same for every method.
            found = {f"{direction}_auc": trapezoid(data["masked"].values[1:])}
            better = "higher" if direction == DIRECTIONS[0] else "lower"
            yield from areas(values[:, 1:], statistics, found, better=better)

    def points(self, data: xr.Dataset, statistics: Statistics) -> Iterator[CurvePoint]:
        for direction, values in directions(data["correct"].values.astype(float), list(data["order"].values)):
            yield from accuracies(direction, data["masked"].values, values, statistics)


def upsample(
    importance: Float[Tensor, "image token"], grid: tuple[int, int], size: tuple[int, int]
) -> Float[Tensor, "image height width"]:
    """Maps at the resolution of the pixels, bilinear between the centers of tokens, in float64.

    Values are rounded to about six digits of the largest value of their map. Many pixels, such as those beyond the
    outermost centers, have values that are equal but for the rounding of the interpolation, which differs between
    machines and would decide their order.
    """
    maps = importance.double().view(len(importance), 1, *grid)
    large = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)[:, 0]
    # A power of two: sums of rounded values, such as those of a mean, are exact.
    unit = torch.exp2(torch.frexp(maps.abs().amax(dim=(1, 2, 3))).exponent.double() - _BITS)[:, None, None]
    return (large / unit).round() * unit


METRIC = Masking()
