"""Maps at other resolutions: exact fractions for the cells of tokens, Pillow for pixels."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from classlens.core.pixel_maps import cell_means, resize, upsample


def mean_of_cell(values: list[list[int]], grid: tuple[int, int], row: int, column: int) -> Fraction:
    """The integral of a map of squares over a cell, by the area of each square in it."""
    height, width = Fraction(len(values), grid[0]), Fraction(len(values[0]), grid[1])
    total = Fraction(0)
    for y, line in enumerate(values):
        for x, value in enumerate(line):
            inside_y = min((row + 1) * height, y + 1) - max(row * height, y)
            inside_x = min((column + 1) * width, x + 1) - max(column * width, x)
            total += value * max(inside_y, 0) * max(inside_x, 0)
    return total / (height * width)


@pytest.mark.parametrize(("size", "grid"), [((7, 5), (3, 2)), ((6, 8), (3, 4)), ((4, 5), (4, 5)), ((9, 3), (2, 3))])
def test_means_of_cells_are_exact(size: tuple[int, int], grid: tuple[int, int]) -> None:
    values = torch.randint(-9, 9, (2, *size), generator=torch.Generator().manual_seed(0))
    means = cell_means(values.float(), grid)
    expected = [
        [float(mean_of_cell(image, grid, row, column)) for row in range(grid[0]) for column in range(grid[1])]
        for image in values.tolist()
    ]
    np.testing.assert_allclose(
        means, expected, rtol=0, atol=2e-10
    )  # half of 2⁻³⁶ of 16, the power of two above the values


@pytest.mark.parametrize("grid", [(14, 14), (7, 7), (37, 37)])
def test_cells_of_a_flat_map_tie(grid: tuple[int, int]) -> None:
    flat = torch.full((5, 224, 224), 0.1)
    assert len(cell_means(flat, grid).unique()) == 1
    assert torch.equal(cell_means(flat, grid)[:1], cell_means(flat[:1], grid)), "the batch decides rounding"
    assert torch.isfinite(resize(torch.full((1, 4, 4), 1e-322, dtype=torch.float64), (8, 8))).all()


def test_a_coarser_map_is_bilinear_between_its_centers() -> None:
    # Two values have their centers at a quarter and three quarters, four cells at 1/8, 3/8 …
    means = cell_means(torch.tensor([[[0.0, 8.0]] * 5]), (5, 4))
    assert means.view(5, 4).tolist() == [[0.0, 2.0, 6.0, 8.0]] * 5


@pytest.mark.parametrize("size", [(24, 16), (3, 2), (5, 11), (6, 4)])
def test_resized_as_pillow_does(size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).normal(size=(7, 6)).astype(np.float32)
    expected = np.asarray(Image.fromarray(values).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    resized = resize(torch.from_numpy(values)[None], size)[0]
    # Pillow computes in float32, and values are rounded to a millionth of the largest.
    np.testing.assert_allclose(resized, expected, rtol=0, atol=5e-6)
    same = resize(torch.from_numpy(values)[None], (7, 6))[0]
    assert same.tolist() == values.astype(np.float64).tolist()
    tokens = torch.from_numpy(values).flatten()[None]
    assert torch.equal(upsample(tokens, (7, 6), size)[0], resized)
