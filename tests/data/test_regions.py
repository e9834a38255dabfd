"""Polygons and run lengths of COCO beside loops over pixels, and texts that pycocotools 2.0.11 wrote."""

from __future__ import annotations

import numpy as np
import pytest

from classlens.core.arrays import Array
from classlens.data.regions import decode_runs, fill_polygons


def literal(polygon: Array, height: int, width: int) -> list[list[bool]]:
    """Whether a ray from the center of each pixel to the left crosses an odd number of edges."""

    def inside(x: float, y: float) -> bool:
        odd = False
        for (ax, ay), (bx, by) in zip(polygon.tolist(), np.roll(polygon, -1, axis=0).tolist(), strict=True):
            if (ay > y) != (by > y) and x > ax + (y - ay) * (bx - ax) / (by - ay):
                odd = not odd
        return odd

    return [[inside(j + 0.5, i + 0.5) for j in range(width)] for i in range(height)]


@pytest.mark.parametrize("seed", range(6))
def test_polygons(seed: int) -> None:
    """They cross themselves, and leave the picture on all sides."""
    generator = np.random.default_rng(seed)
    first, second = (generator.uniform(-4, 18, (corners, 2)) for corners in (3, 9))
    filled = fill_polygons([first.ravel().tolist(), second.ravel().tolist()], (11, 14))
    np.testing.assert_array_equal(filled, np.array(literal(first, 11, 14)) | np.array(literal(second, 11, 14)))


def test_runs_as_pycocotools_writes_them() -> None:
    mask = np.zeros((16, 16), dtype=bool)
    mask[2:9, 3:12] = True
    mask[5, 5] = False
    mask[12, 14] = True
    np.testing.assert_array_equal(decode_runs("b17900LH0840000000000Z1JPO", (16, 16)), mask)
    counts = [50, 7, 9, 7, 9, 3, 1, 3, 9, *[7, 9] * 5, 7, 51, 1, 19]
    np.testing.assert_array_equal(decode_runs(counts, (16, 16)), mask)


@pytest.mark.parametrize("counts", [[3, 2], [5, -1, 2], "0"])
def test_runs_of_another_size(counts: list[int] | str) -> None:
    with pytest.raises(ValueError, match="do not add up to 2×3 pixels"):
        decode_runs(counts, (2, 3))
