"""Segmentation: does the map, cut at its mean, lie where the mask shows the class?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float
from numpy import ndarray

from classlens.core.stats import Statistics, bootstrap
from classlens.lens.lens import Lens
from classlens.models.view import Tokens
from classlens.store.schema import Array, Variable
from classlens.tasks.evaluation.curves import Floats, mean
from classlens.tasks.evaluation.image_batch import EvaluationBatch, Settings
from classlens.tasks.evaluation.masking import upsampled
from classlens.tasks.evaluation.method_spec import MethodSpec
from classlens.tasks.evaluation.metric import CurveAxes, CurvePoint, MetricSchema, Score

_PARTS = ("background", "class")


@dataclass(frozen=True)
class Segmentation:
    """Pixel accuracy, mIoU and mAP of maps against masks, at the resolution of the model's input.

    The map is laid over the pixels bilinearly and cut at its mean. Pixel accuracy and IoU (of class and background,
    then their mean) are of all pixels together; the average precision is of each image, class and background in one
    ranking by the map scaled to 0…1 and by what is missing to 1, as in the published code of Chefer et al. (CVPR 2021),
    then the mean. Pixels that the mask leaves open do not count, nor do images without a pixel of their class.
    """

    name: str = "segmentation"
    mosaics: bool = False
    labels: ClassVar[Mapping[str, str]] = {
        "pixel_accuracy": "segmentation, pixel accuracy",
        "mean_iou": "segmentation, mIoU",
        "mean_ap": "segmentation, mAP",
    }
    curve_labels: ClassVar[Mapping[str, str]] = {}
    curve_axes: ClassVar[CurveAxes | None] = None
    rounding_error: ClassVar[bool] = False

    def lacks(self, lens: Lens, *, masks: bool, twin: bool) -> str | None:
        return None if masks else "the data has no masks that show where the class is"

    def takes(self, method: MethodSpec) -> bool:
        return True

    def shape(self, lens: Lens, tokens: Tokens, method: MethodSpec, settings: Settings) -> MetricSchema:
        whole = np.dtype("int32")
        variables = {
            "hits": Variable(("image",), whole, -1, "pixels that map and mask agree on"),
            "pixels": Variable(("image",), whole, -1, "pixels of which the mask tells what they show"),
            "intersection": Variable(("image", "part"), whole, -1, "pixels that are this part in map and mask"),
            "union": Variable(("image", "part"), whole, -1, "pixels that are this part in map or mask"),
            "average_precision": Variable(("image",), np.dtype("float32"), np.nan, "of all pixels of the image"),
        }
        return MetricSchema(variables, {"part": len(_PARTS)}, {"part": np.array(_PARTS)})

    def measure(self, seen: EvaluationBatch, method: MethodSpec) -> dict[str, Array]:
        maps = upsampled(seen.importance(method), seen.grid, seen.size).flatten(1).numpy()
        found: dict[str, Array] = {
            "hits": np.full(len(seen), -1, np.int32),
            "pixels": np.full(len(seen), -1, np.int32),
            "intersection": np.full((len(seen), 2), -1, np.int32),
            "union": np.full((len(seen), 2), -1, np.int32),
            "average_precision": np.full(len(seen), np.nan, np.float32),
        }
        for image, (values, shows) in enumerate(zip(maps, seen.shows, strict=True)):
            known = shows >= 0
            truth = shows[known] == 1
            if not truth.any():
                continue
            cut = (values > values.mean())[known]
            found["hits"][image], found["pixels"][image] = (cut == truth).sum(), known.sum()
            for part in (0, 1):
                found["intersection"][image, part] = ((cut == part) & (truth == part)).sum()
                found["union"][image, part] = ((cut == part) | (truth == part)).sum()
            span = values.max() - values.min()
            scaled = ((values - values.min()) / span if span > 0 else np.zeros_like(values))[known]
            ranked, wanted = np.concatenate([1 - scaled, scaled]), np.concatenate([~truth, truth])
            found["average_precision"][image] = average_precision(ranked, wanted)
        return found

    def scores(self, data: xr.Dataset, how: Statistics) -> Iterator[Score]:
        data = data.isel(image=data["pixels"].values >= 0)
        kinds = ("hits", "pixels", "intersection", "union")
        counts = np.column_stack([data[name].values for name in kinds]).astype(float)

        def statistic(drawn: Floats) -> Floats:
            hits, pixels, *parts = (drawn @ counts).T
            background, own = (_share(parts[part], parts[2 + part]) for part in (0, 1))
            return np.stack([_share(hits, pixels), (background + own) / 2], axis=1)

        value, low, high = bootstrap(statistic, len(counts), how)
        for number, name in enumerate(("pixel_accuracy", "mean_iou")):
            yield Score(name, float(value[number]), float(low[number]), float(high[number]), len(counts), "higher")
        yield mean("mean_ap", data["average_precision"].values, how, better="higher")

    def points(self, data: xr.Dataset, how: Statistics) -> Iterator[CurvePoint]:
        yield from ()


def _share(part: Floats, whole: Floats) -> Floats:
    found: Floats = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return found


def average_precision(scores: Float[ndarray, " pixel"], wanted: Bool[ndarray, " pixel"]) -> float:
    """``Σ (recall_k - recall_{k-1}) · precision_k`` down the ranking; equal scores are one step."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(wanted[order])
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    precision = hits[last] / (last + 1)
    gained = np.diff(hits[last], prepend=0) / max(1, hits[-1])
    return float(precision @ gained)
