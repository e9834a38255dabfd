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
