"""Maps of explanations over their pictures: one file for each image and method, side by side, and over blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator
from numpy.typing import NDArray
from PIL import Image

from classlens.present.figures.style import SIGNED, plain

Floats = NDArray[np.floating[Any]]

_OPACITY = 0.72
# Levels of contours, as shares of the largest value.
_LEVELS = (0.25, 0.5, 0.75)


def upsampled(grid: Floats, size: tuple[int, int]) -> Floats:
    """A grid of tokens at the resolution of a picture (width, height), bilinearly between the centres of tokens."""
    picture = Image.fromarray(np.asarray(grid, dtype=np.float32)).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(picture, dtype=np.float64)


def overlay(picture: Image.Image, grid: Floats, *, signed: bool, largest: float | None = None) -> Image.Image:
    """A map laid over its picture at the picture's own resolution.

        overlay(trace.picture(0), trace.map("cat").values[0], signed=True).save("cat.png")

    Unsigned maps go from 0 to ``largest`` (the map's own when left out) in a perceptually even colour map; signed ones
    from minus to plus that, blue against and orange for the class, and nothing where the map is 0. The stronger the
    value the more of the colour shows.
    """
    values = upsampled(grid, picture.size)
    limit = (float(np.abs(grid).max()) if largest is None else largest) or 1.0
    strength = np.clip(np.abs(values) / limit, 0, 1)[..., None]
    colour = _colours(signed)(_norm(signed, limit)(values))[..., :3]
    grey = np.asarray(picture.convert("L"), dtype=np.float64)[..., None] / 255 * 0.72 + 0.2
    opacity = _OPACITY * strength if signed else np.full_like(strength, _OPACITY)
    mixed = grey * (1 - opacity) + colour * opacity
    return Image.fromarray((255 * np.clip(mixed, 0, 1)).round().astype(np.uint8))


def _colours(signed: bool) -> Colormap:
    return SIGNED if signed else colormaps["inferno"]


def _norm(signed: bool, limit: float) -> Normalize:
    return Normalize(-limit, limit) if signed else Normalize(0, limit)


def side_by_side(
    picture: Image.Image, maps: Mapping[str, tuple[Floats, bool]], title: str, *, contour: bool = False
) -> Figure:
    """The picture and one map a method, each with a scale of its own; ``maps`` by method: its grid, and if it is
    signed."""
    count = len(maps) + 1
    columns = min(count, 5)
    rows = -(-count // columns)
    height, width = picture.height, picture.width
    figure = Figure(figsize=(2.25 * columns, rows * (2.1 * height / width + 0.55) + 0.35), layout="constrained")
    panels = [axes for row in figure.subplots(rows, columns, squeeze=False) for axes in row]
    for axes in panels:
        axes.set_axis_off()
    smooth = "nearest" if max(picture.size) < 97 else "antialiased"
    panels[0].imshow(picture, interpolation=smooth)
    panels[0].set_title("image", fontsize=9)
    for axes, (name, (grid, signed)) in zip(panels[1:], maps.items(), strict=False):
        limit = float(np.abs(grid).max()) or 1.0
        axes.imshow(overlay(picture, grid, signed=signed), interpolation=smooth)
        if contour:
            levels = [limit * level for level in _LEVELS]
            axes.contour(upsampled(grid, picture.size), levels=levels, colors="white", linewidths=0.8)
        axes.set_title(name.replace("_", " "), fontsize=9)
        bar = figure.colorbar(
            ScalarMappable(_norm(signed, limit), _colours(signed)),
            ax=axes,
            orientation="horizontal",
            pad=0.02,
            aspect=14,
        )
        bar.ax.tick_params(labelsize=6.5)
        bar.locator = FixedLocator([-limit, 0, limit] if signed else [0, limit])
        bar.formatter.set_powerlimits((-2, 3))  # type: ignore[attr-defined]
        bar.update_ticks()
    figure.suptitle(plain(title), fontsize=11, x=0.01, ha="left", parse_math=False)
    return figure


def frames(picture: Image.Image, grids: Floats, *, signed: bool) -> Iterator[Image.Image]:
    """An overlay for each block, all on one scale, for an animation; ``grids`` is ``[block, row, column]``."""
    limit = float(np.abs(grids).max()) or 1.0
    for grid in grids:
        yield overlay(picture, grid, signed=signed, largest=limit)
