"""Mosaics of two by two images of four classes."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor
from torch.nn import functional as F

QUARTERS = 4


def mosaic(
    pixels: Float[Tensor, "image channel height width"], *, double: bool
) -> Float[Tensor, "mosaic channel rows columns"]:
    """Every four consecutive images in one: at twice the resolution, or each at half its size."""
    height, width = pixels.shape[-2:]
    size = (height, width) if double else (height // 2, width // 2)
    if not double:
        pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=True, align_corners=False)
    quarter_grid = pixels.view(-1, 2, 2, pixels.shape[1], *size).permute(0, 3, 1, 4, 2, 5)
    joined = quarter_grid.reshape(len(quarter_grid), pixels.shape[1], 2 * size[0], 2 * size[1])
    # Two halves are one pixel short of an odd side.
    return joined if double else F.pad(joined, (0, width % 2, 0, height % 2), mode="replicate")


def quarters(rows: int, columns: int) -> Float[Tensor, "quarter token"]:
    """The share of each token in each quarter: 0 or 1, or a half for tokens in the middle of an odd side."""
    upper, left = (torch.clamp(side / 2 - torch.arange(side, dtype=torch.float64), 0, 1) for side in (rows, columns))
    return torch.stack([(y[:, None] * x).flatten() for y in (upper, 1 - upper) for x in (left, 1 - left)])


def quadruples(labels: Int[ndarray, " image"], seed: int) -> Int[ndarray, " chosen"]:
    """Images in an order in which every four consecutive ones are of four classes; images left over are not included.

    Each quadruple is drawn from the classes with the most remaining images, so that as few images as possible are
    left over.
    """
    rng = np.random.default_rng(seed)
    remaining = {int(label): list(rng.permutation(np.flatnonzero(labels == label))) for label in np.unique(labels)}
    remaining.pop(-1, None)

    def queued(label: int) -> tuple[int, float, int]:
        # Classes with equally many images in random order, otherwise the same classes would always meet.
        return -len(remaining[label]), float(rng.random()), label

    queue = [queued(label) for label in remaining]
    heapify(queue)
    chosen: list[int] = []
    while len(queue) >= QUARTERS:
        classes = [heappop(queue)[2] for _ in range(QUARTERS)]
        for number in rng.permutation(QUARTERS):
            chosen.append(int(remaining[classes[number]].pop()))
        for label in classes:
            if remaining[label]:
                heappush(queue, queued(label))
    return np.array(chosen, dtype=np.int64)
