"""Importance maps of one resolution at another: tokens as pixels, and pixels as tokens."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

# Bits kept when a map is rounded, and when its means are: float64 has 52, and sums lose some.
_BITS, _MEAN_BITS = 20, 36


def upsample(
    importance: Float[Tensor, "image token"], grid: tuple[int, int], size: tuple[int, int]
) -> Float[Tensor, "image height width"]:
    """Maps at the resolution of the pixels, bilinear between the centers of tokens, in float64; see ``resize``."""
    return resize(importance.view(len(importance), *grid), size)


def resize(maps: Float[Tensor, "image row column"], size: tuple[int, int]) -> Float[Tensor, "image height width"]:
    """Maps at another resolution, bilinear between the centers of their values, in float64; means where it is coarser.

    Values are rounded to about six digits of the largest value of their map. Pixels beyond the outermost centers, for
    example, have equal values but for rounding, which differs between machines and would decide their order. Maps of
    this resolution are not changed.
    """
    maps = maps.double()
    if maps.shape[1:] == size:
        return maps
    coarser = size[0] < maps.shape[1] or size[1] < maps.shape[2]
    resized = F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False, antialias=coarser)[:, 0]
    return _rounded(resized, maps, _BITS)


def _rounded(
    values: Float[Tensor, "image height width"], maps: Float[Tensor, "image row column"], bits: int
) -> Float[Tensor, "image height width"]:
    """Values made from maps, rounded to some bits of the largest value of their map."""
    largest = maps.abs().amax(dim=(1, 2)).clamp_min(torch.finfo(torch.float64).tiny * 2**bits)
    # A power of two, so that sums of rounded values are exact.
    unit = torch.exp2(torch.frexp(largest).exponent.double() - bits)[:, None, None]
    return (values / unit).round() * unit


def cell_means(maps: Float[Tensor, "image row column"], grid: tuple[int, int]) -> Float[Tensor, "image token"]:
    """The mean of maps over the cell of each token, weighted by area, in float64.

    A cell may end within a value of the map. Along an axis with fewer values than tokens, the map is bilinear between
    the centers of its values. Values are rounded to about ten digits, so that equal cells tie.
    """
    maps = maps.double()
    if maps.shape[1:] == grid:
        return maps.flatten(1)
    rows, columns = (_means(size, cells) for size, cells in zip(maps.shape[1:], grid, strict=True))
    return _rounded(rows @ maps @ columns.T, maps, _MEAN_BITS).flatten(1)


def _means(values: int, cells: int) -> Float[Tensor, "cell value"]:
    """The weight of each value in the mean of each cell, along one axis."""
    if values < cells:
        unit = torch.eye(values, dtype=torch.float64)
        return F.interpolate(unit[None], size=cells, mode="linear", align_corners=False)[0].T
    # In units of 1 / (values · cells), so that borders are whole numbers.
    cell, value = torch.arange(cells)[:, None] * values, torch.arange(values) * cells
    overlap = torch.minimum(cell + values, value + cells) - torch.maximum(cell, value)
    return overlap.clamp_min(0).double() / values
