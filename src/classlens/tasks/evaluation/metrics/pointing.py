"""Grid pointing: the share of importance in the right quarter of a mosaic of four classes."""

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
from classlens.tasks.evaluation.mosaics import QUARTERS, quarters


class Pointing(Metric):
    """The share of positive importance for a class inside its quarter of a mosaic of two by two images of four classes.

    Chance is a quarter. Each image is one quarter of one mosaic, and is explained for its class. Mosaics have twice the
    model's resolution where the model accepts it; otherwise each image has half its size. A map without positive values
    has a share of 0. Source: the grid pointing game of Böhle, Fritz and Schiele, *Convolutional Dynamic Alignment
    Networks for Interpretable Classifications*, CVPR 2021.
    """

    label = "Pointing"
    about = "share of positive importance in the right quarter of a mosaic of four classes"
    variables = {
        "share": Variable(
            ("image",),
            np.dtype("float32"),
            np.nan,
            "share of the positive importance for the image's class inside its quarter of the mosaic",
        )
    }
    measures = {"share_inside": "pointing, share inside"}
    images = "mosaic"

    def applies_to(self, importance: Importance) -> bool:
        return importance.live  # a store holds maps of single images only

    def measure(self, batch: ImageBatch, importance: Importance) -> dict[str, Array]:
        """The batch holds mosaics, and four classes in a row for each of them."""
        rows, columns = batch.grid
        inside = quarters(rows, columns)
        target = batch.target.view(-1, QUARTERS)
        share = np.empty(target.shape, dtype=np.float32)
        for number in range(QUARTERS):
            positive = importance.explain(batch.trace, target[:, number]).clamp_min(0).double()
            total = positive.sum(dim=1)
            share[:, number] = torch.where(total > 0, positive @ inside[number] / total, 0.0)
        return {"share": share.reshape(-1)}

    def scores(self, data: xr.Dataset, statistics: Statistics) -> Iterator[Score]:
        # The four images of a mosaic are not independent, so mosaics are resampled.
        values = data["share"].values.astype(float)
        values = values[: len(values) // QUARTERS * QUARTERS].reshape(-1, QUARTERS).mean(axis=1)
        yield mean("share_inside", values, statistics, better="higher", images=QUARTERS * len(values))


METRIC = Pointing()
