"""Maps at the resolution of the pixels, pixel by pixel and without rounding errors."""

from __future__ import annotations

import math
from fractions import Fraction


def bilinear(grid: list[list[float]], height: int, width: int) -> list[Fraction]:
    """Interpolation between the centers of tokens, constant beyond the outer ones, pixel by pixel, without rounding."""
    rows, columns = len(grid), len(grid[0])
    exact = [[Fraction(value) for value in row] for row in grid]
    half = Fraction(1, 2)
    pixels = []
    for y in range(height):
        for x in range(width):
            v = min(max((y + half) * rows / height - half, Fraction(0)), Fraction(rows - 1))
            u = min(max((x + half) * columns / width - half, Fraction(0)), Fraction(columns - 1))
            i, j = min(int(v), rows - 2), min(int(u), columns - 2)
            a, b = v - i, u - j
            top = (1 - b) * exact[i][j] + b * exact[i][j + 1]
            bottom = (1 - b) * exact[i + 1][j] + b * exact[i + 1][j + 1]
            pixels.append((1 - a) * top + a * bottom)
    return pixels


def rounded(values: list[Fraction], largest: float) -> list[Fraction]:
    """Multiples of 2^-20 of the next power of two above the largest value."""
    unit = Fraction(2) ** (math.frexp(largest)[1] - 20)
    return [round(value / unit) * unit for value in values]


def ranked(grid: list[list[float]], height: int, width: int) -> list[int]:
    """Pixels from the most to the least important, equal ones in the order of the rows."""
    largest = max(abs(value) for row in grid for value in row)
    exact = rounded(bilinear(grid, height, width), largest)
    return [pixel for _, pixel in sorted((-value, pixel) for pixel, value in enumerate(exact))]
