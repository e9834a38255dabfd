"""Average drop: does the class stay probable if the map lets only important pixels through?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import xarray as xr

from classlens.core.arrays import Array
from classlens.core.stats import Statistics
from classlens.store.schema import Variable
from classlens.tasks.evaluation.curves import mean
from classlens.tasks.evaluation.image_batch import ImageBatch, Importance
from classlens.tasks.evaluation.metric import Metric, Score


class AverageDrop(Metric):
    """Drop, gain and frequency of an increase of the probability ``y`` of the class, to ``o`` for the map times image.

    Drop is the mean of ``max(0, y - o) / y``, increase the share of images with ``o > y``, gain the mean of
    ``max(0, o - y) / (1 - y)``. The map is interpolated bilinearly to the pixels; negative values are set to 0, the
    others divided by the largest of them. It is multiplied with the normalized pixels, so that unimportant pixels get
    the mean color (black without a normalization); of a map without positive values nothing is left. Source of drop and
    increase: Chattopadhay et al., *Grad-CAM++*, WACV 2018, section 4.1; of the gain: Zhang et al., *Opti-CAM*, 2023.
    """

    label = "Average drop"
    about = "drop and increase of the probability of the class for the map times the image"
    variables = {
        "drop": Variable(("image",), np.dtype("float32"), np.nan, "drop of the probability, as a share of it"),
        "increase": Variable(("image",), np.dtype("int8"), -1, "1 where the probability is larger"),
        "gain": Variable(("image",), np.dtype("float32"), np.nan, "gain of the probability, as a share of 1 minus it"),
    }
    measures = {"average_drop": "average drop", "average_increase": "average increase", "average_gain": "average gain"}

    def measure(self, batch: ImageBatch, importance: Importance) -> dict[str, Array]:
        positive = batch.pixel_maps(importance).clamp_min(0)
        shares = positive / positive.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
        pixels = batch.pixels * shares[:, None].to(batch.pixels)
        y, o = batch.probability_unchanged, batch.probability(batch.run(pixels))
        return {
            "drop": _share(np.maximum(0, y - o), y),
            "increase": (o > y).astype(np.int8),
            "gain": _share(np.maximum(0, o - y), 1 - y),
        }

    def scores(self, data: xr.Dataset, statistics: Statistics) -> Iterator[Score]:
        yield mean("average_drop", data["drop"].values, statistics, better="lower")
        yield mean("average_increase", data["increase"].values.astype(np.float64), statistics, better="higher")
        yield mean("average_gain", data["gain"].values, statistics, better="higher")


def _share(part: Array, whole: Array) -> Array:
    """0 where a probability is rounded to 0 or 1, so that there is nothing to lose or to gain."""
    share: Array = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0).astype(np.float32)
    return share


METRIC = AverageDrop()
