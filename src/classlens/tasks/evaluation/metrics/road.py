"""ROAD: the probability of the class as pixels are removed and imputed from their neighbors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.arrays import Array
from classlens.core.stats import Statistics
from classlens.store.schema import Variable
from classlens.tasks.evaluation.curves import DIRECTIONS, PROBABILITY_AXES, areas, directions, mean, mean_points
from classlens.tasks.evaluation.image_batch import ImageBatch, Importance
from classlens.tasks.evaluation.imputation import imputed
from classlens.tasks.evaluation.metric import CurvePoint, Metric, MetricAxes, Score

# Removed shares of the pixels, in tenths.
_TENTHS = (0, 1, 3, 5, 7, 9)
_NOISE = 0.01


class Road(Metric):
    """Mean probability of the class with 10, 30, 50, 70 and 90 % of the pixels removed and imputed, the least important
    first (``negative``) or the most important first (``positive``), and half the difference of both (``combined``).

    The map is interpolated bilinearly to the pixels. A removed pixel becomes the weighted mean of its neighbors, plus
    normal noise with a standard deviation of 0.01 in units of preprocessed pixels: the shape of what was removed is
    hardly visible to the model. The noise is drawn from the seed and the index of the image, once for all shares and
    methods. Accuracies are those of the same images. Source: Rong et al., *A Consistent and Efficient Evaluation
    Strategy for Attribution Methods*, ICML 2022 (accuracy); the probability and ``combined`` are those of
    ``ROADCombined`` in pytorch-grad-cam.
    """

    label = "ROAD"
    about = "probability of the class as pixels are removed and imputed from their neighbors, in order of importance"
    variables = {
        "probability": Variable(
            ("image", "order", "removed"),
            np.dtype("float32"),
            np.nan,
            "probability of the class with this share of the pixels imputed",
        ),
        "correct": Variable(
            ("image", "order", "removed"),
            np.dtype("int8"),
            -1,
            "1 where the prediction is correct with this share of the pixels imputed, -1 without a class",
        ),
    }
    measures = {
        "combined": "ROAD, combined",
        "negative_probability": "ROAD, least first, probability",
        "positive_probability": "ROAD, most first, probability",
        "negative_accuracy": "ROAD, least first, accuracy",
        "positive_accuracy": "ROAD, most first, accuracy",
    }
    curves = {
        "negative": "pixels imputed, least important first",
        "positive": "pixels imputed, most important first",
    }
    curve_axes = PROBABILITY_AXES

    def coords(self, axes: MetricAxes) -> dict[str, Array]:
        return {"order": np.array(DIRECTIONS), "removed": np.array([tenth / 10 for tenth in _TENTHS])}

    def passes(self, axes: MetricAxes) -> float:
        # An imputation costs one to three passes of a small model.
        return 2 * len(DIRECTIONS) * (len(_TENTHS) - 1)

    def measure(self, batch: ImageBatch, importance: Importance) -> dict[str, Array]:
        most_first = batch.pixel_order(importance)
        shape = (len(batch), len(DIRECTIONS), len(_TENTHS))
        probability, correct = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.int8)
        probability[:, :, 0] = batch.probability_unchanged[:, None]
        correct[:, :, 0] = batch.correct_unchanged[:, None]
        for number, order in enumerate((most_first.flip(1), most_first)):
            for column, tenth in enumerate(_TENTHS[1:], start=1):
                logits = batch.run(noisily_imputed(batch, order[:, : order.shape[1] * tenth // 10]))
                probability[:, number, column] = batch.probability(logits)
                correct[:, number, column] = batch.correct(logits, torch.arange(len(batch)))
        return {"probability": probability, "correct": correct}

    def scores(self, data: xr.Dataset, statistics: Statistics) -> Iterator[Score]:
        data = data.isel(removed=slice(1, None))  # the unchanged image is the same for every method
        least, most = (values.mean(axis=1) for _, values in directions(data, "probability"))
        yield mean("combined", (least - most) / 2, statistics, better="higher")
        for variable in ("probability", "correct"):
            name = "accuracy" if variable == "correct" else variable
            yield from areas(data, {name: lambda curves: curves.mean(axis=1)}, statistics, variable)

    def points(self, data: xr.Dataset, statistics: Statistics) -> Iterator[CurvePoint]:
        yield from mean_points(data, data["removed"].values, statistics, "probability")


def noisily_imputed(
    batch: ImageBatch, indices: Int[Tensor, "image pixel"]
) -> Float[Tensor, "image channel height width"]:
    """The images with some pixels imputed, plus noise that does not depend on the batch."""
    result = batch.pixels.clone()
    for number, pixels in enumerate(batch.pixels):
        removed = np.zeros(batch.size, dtype=bool)
        removed.flat[indices[number].numpy()] = True
        rng = np.random.default_rng([batch.settings.seed, batch.first + number])
        values = pixels.double().cpu().numpy()
        noisy = imputed(values, removed) + _NOISE * rng.standard_normal(values.shape)
        result[number] = torch.from_numpy(np.where(removed, noisy, values)).to(result)
    return result


METRIC = Road()
