"""Grid pointing: in a mosaic of four classes, does what speaks for a class lie in its quarter?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import ClassVar

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor
from torch.nn import functional as F

from classlens.core.stats import Statistics
from classlens.lens.lens import Lens
from classlens.models.view import Tokens
from classlens.store.schema import Array, Variable
from classlens.tasks.evaluation.curves import mean
from classlens.tasks.evaluation.image_batch import EvaluationBatch, Settings
from classlens.tasks.evaluation.method_spec import MethodSpec
from classlens.tasks.evaluation.metric import CurveAxes, CurvePoint, MetricSchema, Score

QUARTERS = 4


@dataclass(frozen=True)
class Pointing:
    """Mosaics of two by two images of four classes; the share of positive importance inside the right quarter.

    Chance is a quarter. Each image is a quarter once, and is explained for its class. Mosaics have twice the
    resolution where the model takes it, else its own, each image at half its size. A map without anything positive has
    a share of 0. Source: the grid pointing game of Böhle, Fritz and Schiele, *Convolutional Dynamic Alignment
    Networks for Interpretable Classifications*, CVPR 2021.
    """

    name: str = "pointing"
    mosaics: bool = True
    labels: ClassVar[Mapping[str, str]] = {"share_inside": "pointing, share inside"}
    curve_labels: ClassVar[Mapping[str, str]] = {}
    curve_axes: ClassVar[CurveAxes | None] = None
    rounding_error: ClassVar[bool] = False

    def lacks(self, lens: Lens, *, masks: bool, twin: bool) -> str | None:
        return None

    def takes(self, method: MethodSpec) -> bool:
        return method.stored is None  # a store has single images

    def shape(self, lens: Lens, tokens: Tokens, method: MethodSpec, settings: Settings) -> MetricSchema:
        note = "share of the positive importance for the image's class inside its quarter of the mosaic"
        return MetricSchema({"share": Variable(("image",), np.dtype("float32"), np.nan, note)}, {}, {})

    def measure(self, seen: EvaluationBatch, method: MethodSpec) -> dict[str, Array]:
        """``seen`` holds mosaics, its classes four of each in a row."""
        rows, columns = seen.grid
        inside = quarters(rows, columns)
        target = seen.target.view(-1, QUARTERS)
        share = np.empty(target.shape, dtype=np.float32)
        for number in range(QUARTERS):
            positive = method.importance(seen.trace, target[:, number]).clamp_min(0).double()
            total = positive.sum(dim=1)
            share[:, number] = torch.where(total > 0, positive @ inside[number] / total, 0.0)
        return {"share": share.reshape(-1)}

    def scores(self, data: xr.Dataset, how: Statistics) -> Iterator[Score]:
        # The four images of a mosaic are not independent: mosaics are drawn.
        values = data["share"].values.astype(float)
        values = values[: len(values) // QUARTERS * QUARTERS].reshape(-1, QUARTERS).mean(axis=1)
        yield mean("share_inside", values, how, better="higher", images=QUARTERS * len(values))

    def points(self, data: xr.Dataset, how: Statistics) -> Iterator[CurvePoint]:
        yield from ()


def mosaic(pixels: Float[Tensor, "image channel height width"], *, double: bool) -> Float[Tensor, "mosaic channel h w"]:
    """Every four images in one: at twice the resolution, or each at half its size."""
    height, width = pixels.shape[-2:]
    size = (height, width) if double else (height // 2, width // 2)
    if not double:
        pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=True, align_corners=False)
    four = pixels.view(-1, 2, 2, pixels.shape[1], *size).permute(0, 3, 1, 4, 2, 5)
    joined = four.reshape(len(four), pixels.shape[1], 2 * size[0], 2 * size[1])
    # A side that is odd is not made of two halves.
    return joined if double else F.pad(joined, (0, width % 2, 0, height % 2), mode="replicate")


def quarters(rows: int, columns: int) -> Float[Tensor, "quarter token"]:
    """How much of each token lies in each quarter: 0 or 1, but a half where a side has an odd number of tokens."""
    upper, left = (torch.clamp(side / 2 - torch.arange(side, dtype=torch.float64), 0, 1) for side in (rows, columns))
    return torch.stack([(r[:, None] * c).flatten() for r in (upper, 1 - upper) for c in (left, 1 - left)])


def quadruples(labels: Int[ndarray, " image"], seed: int) -> Int[ndarray, " chosen"]:
    """Images in an order in which each four in a row are of four classes; those that are left over are not in it.

    Classes with the most images left are dealt first, so that as few as can be are left over.
    """
    rng = np.random.default_rng(seed)
    left = {int(label): list(rng.permutation(np.flatnonzero(labels == label))) for label in np.unique(labels)}
    left.pop(-1, None)

    def queued(label: int) -> tuple[int, float, int]:
        # Equal ones in random order, else the same classes would always meet.
        return -len(left[label]), float(rng.random()), label

    queue = [queued(label) for label in left]
    heapify(queue)
    chosen: list[int] = []
    while len(queue) >= QUARTERS:
        four = [heappop(queue)[2] for _ in range(QUARTERS)]
        for place in rng.permutation(QUARTERS):
            chosen.append(int(left[four[place]].pop()))
        for label in four:
            if left[label]:
                heappush(queue, queued(label))
    return np.array(chosen, dtype=np.int64)
