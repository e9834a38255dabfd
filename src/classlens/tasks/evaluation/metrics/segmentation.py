"""Segmentation: does the map, thresholded at its mean, agree with the mask of the class?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float
from numpy import ndarray

from classlens.core.arrays import Array
from classlens.core.stats import Statistics, ratio
from classlens.store.schema import Variable
from classlens.tasks.evaluation.curves import Floats, mean, scores
from classlens.tasks.evaluation.image_batch import ImageBatch, Importance
from classlens.tasks.evaluation.metric import Metric, MetricAxes, Score

_PARTS = ("background", "class")
_COUNT, _SCORE = np.dtype("int32"), np.dtype("float32")


class Segmentation(Metric):
    """Pixel accuracy, mIoU and mAP of maps against masks, at the resolution of the model's input.

    The map is interpolated bilinearly to the pixels and thresholded at its mean. Pixel accuracy and IoU (the mean of
    class and background) are computed over the pixels of all images. The average precision is computed for each image,
    then averaged: a pixel with map value ``s``, scaled to 0…1, is ranked twice, as class with score ``s`` and as
    background with ``1 - s``, as in the published code of Chefer et al. (CVPR 2021). Pixels of unknown class and images
    without a pixel of their class do not count.
    """

    label = "Segmentation"
    about = "pixel accuracy, mIoU and mAP of maps against masks of the class"
    variables = {
        "hits": Variable(("image",), _COUNT, -1, "pixels where map and mask agree"),
        "pixels": Variable(("image",), _COUNT, -1, "pixels of known class"),
        "intersection": Variable(("image", "part"), _COUNT, -1, "pixels of this part in map and mask"),
        "union": Variable(("image", "part"), _COUNT, -1, "pixels of this part in map or mask"),
        "average_precision": Variable(("image",), _SCORE, np.nan, "average precision over class and background"),
    }
    measures = {
        "pixel_accuracy": "segmentation, pixel accuracy",
        "mean_iou": "segmentation, mIoU",
        "mean_ap": "segmentation, mAP",
    }
    needs_masks = True

    def coords(self, axes: MetricAxes) -> dict[str, Array]:
        return {"part": np.array(_PARTS)}

    def measure(self, batch: ImageBatch, importance: Importance) -> dict[str, Array]:
        maps = batch.pixel_maps(importance).flatten(1).numpy()
        arrays: dict[str, Array] = {
            "hits": np.full(len(batch), -1, np.int32),
            "pixels": np.full(len(batch), -1, np.int32),
            "intersection": np.full((len(batch), 2), -1, np.int32),
            "union": np.full((len(batch), 2), -1, np.int32),
            "average_precision": np.full(len(batch), np.nan, np.float32),
        }
        for image, (values, shows) in enumerate(zip(maps, batch.shows_class, strict=True)):
            known = shows >= 0
            truth = shows[known] == 1
            if not truth.any():
                continue
            predicted = (values > values.mean())[known]
            arrays["hits"][image], arrays["pixels"][image] = (predicted == truth).sum(), known.sum()
            for part in (0, 1):
                arrays["intersection"][image, part] = ((predicted == part) & (truth == part)).sum()
                arrays["union"][image, part] = ((predicted == part) | (truth == part)).sum()
            span = values.max() - values.min()
            scaled = ((values - values.min()) / span if span > 0 else np.zeros_like(values))[known]
            both_scores, relevant = np.concatenate([1 - scaled, scaled]), np.concatenate([~truth, truth])
            arrays["average_precision"][image] = average_precision(both_scores, relevant)
        return arrays

    def scores(self, data: xr.Dataset, statistics: Statistics) -> Iterator[Score]:
        data = data.isel(image=data["pixels"].values >= 0)
        variables = ("hits", "pixels", "intersection", "union")
        counts = np.column_stack([data[name].values for name in variables]).astype(float)

        def pooled(drawn: Floats) -> Floats:
            hits, pixels, *intersection_and_union = (drawn @ counts).T
            background, category = map(ratio, intersection_and_union[:2], intersection_and_union[2:])
            return np.stack([ratio(hits, pixels), (background + category) / 2], axis=1)

        yield from scores(("pixel_accuracy", "mean_iou"), pooled, len(counts), statistics, better="higher")
        yield mean("mean_ap", data["average_precision"].values, statistics, better="higher")


def average_precision(scores: Float[ndarray, " pixel"], relevant: Bool[ndarray, " pixel"]) -> float:
    """``Σ (recall_k - recall_{k-1}) · precision_k`` along falling scores; equal scores are one step."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(relevant[order])
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    precision = hits[last] / (last + 1)
    recall_gained = np.diff(hits[last], prepend=0) / max(1, hits[-1])
    return float(precision @ recall_gained)


METRIC = Segmentation()
