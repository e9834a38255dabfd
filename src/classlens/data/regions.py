"""Regions of a picture as COCO writes them, as masks: polygons and run lengths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from classlens.core.arrays import Array

Size = tuple[int, int]
"""Height and width."""


def fill_polygons(polygons: Iterable[Sequence[float] | Array], size: Size) -> Bool[ndarray, "height width"]:
    """Pixels whose center lies inside any of the polygons ``x, y, x, y …``, in pixels from the upper left corner.

    Where a polygon crosses itself, the inside is what an odd number of crossings leads to.

    Examples:
        >>> fill_polygons([[0, 0, 2, 0, 2, 1, 0, 1]], (2, 3)).astype(int).tolist()
        [[1, 1, 0], [0, 0, 0]]
    """
    filled = np.zeros(size, dtype=bool)
    for polygon in polygons:
        x, y = np.asarray(polygon, dtype=np.float64).reshape(-1, 2).T
        (top, bottom), (left, right) = _inside(y, size[0]), _inside(x, size[1])
        next_x, next_y = np.roll(x, -1), np.roll(y, -1)
        centers = np.arange(top, bottom) + 0.5
        edge, row = np.nonzero((y[:, None] <= centers) != (next_y[:, None] <= centers))
        slope = (next_x[edge] - x[edge]) / (next_y[edge] - y[edge])
        crossing = x[edge] + (centers[row] - y[edge]) * slope
        first = np.clip(np.ceil(crossing - 0.5), left, right).astype(np.int64) - left
        toggles = np.zeros((bottom - top, right - left + 1), dtype=np.int64)
        np.add.at(toggles, (row, first), 1)
        filled[top:bottom, left:right] |= toggles.cumsum(axis=1)[:, :-1] % 2 == 1
    return filled


def _inside(coordinates: Array, count: int) -> tuple[int, int]:
    """First and last pixel of a side, of those that a polygon may reach."""
    first = int(np.clip(np.floor(coordinates.min()), 0, count))
    return first, int(np.clip(np.ceil(coordinates.max()), first, count))


def decode_runs(counts: Sequence[int] | str, size: Size) -> Bool[ndarray, "height width"]:
    """Run lengths along the columns, of pixels outside and inside in turn.

    Raises ValueError where they are not the pixels of this size.

    Examples:
        >>> decode_runs([1, 2, 1], (2, 2)).astype(int).tolist()
        [[0, 1], [1, 0]]
    """
    lengths = np.asarray(_decompressed(counts) if isinstance(counts, str) else counts, dtype=np.int64)
    if (lengths < 0).any() or lengths.sum() != size[0] * size[1]:
        raise ValueError(f"the runs of a region do not add up to {size[0]}×{size[1]} pixels")
    inside = np.arange(len(lengths)) % 2 == 1
    return np.repeat(inside, lengths).reshape(size[1], size[0]).T


def _decompressed(text: str) -> list[int]:
    """Run lengths from the text of pycocotools: five bits a character, and from the third run the change over two."""
    runs: list[int] = []
    number = shift = 0
    for character in text.encode("ascii"):
        bits = character - 48
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:  # the sign
            number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    return runs
