"""Maps of explanations over their pictures: one file for each image and method, side by side, and over blocks."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator
from numpy.typing import NDArray
from PIL import Image

from classlens.models.geometry import Box, Window
from classlens.present.figures.style import SIGNED

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]

_OPACITY = 0.72
# What the model never saw keeps little contrast: neither as dark as nothing in an unsigned map, nor as lively as in a
# signed one.
_UNSEEN = (0.3, 0.3)
# Levels of contours, as shares of the largest value.
_LEVELS = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Canvas:
    """A picture to lay maps over, and where in it the model's input lies: all of it when ``window`` is left out."""

    picture: Image.Image
    window: Window | None = None

    @property
    def frame(self) -> Box:
        return Box(0, 0, *self.picture.size) if self.window is None else self.window.frame

    @property
    def unseen(self) -> Bools:
        """The pixels ``[row, column]`` that the model never saw."""
        if self.window is None:
            return np.zeros((self.picture.height, self.picture.width), dtype=bool)
        left, top, right, bottom = self.window.seen
        rows, columns = np.arange(self.picture.height) + 0.5, np.arange(self.picture.width) + 0.5
        seen: Bools = ((rows > top) & (rows < bottom))[:, None] & (columns > left) & (columns < right)
        return ~seen

    def sized(self, longest: int, resample: Image.Resampling) -> Canvas:
        """The same with a longer side of ``longest`` pixels."""
        width, height = self.picture.size
        times = longest / max(width, height)
        size = (max(1, round(width * times)), max(1, round(height * times)))
        window = None if self.window is None else self.window.scaled(size[0] / width, size[1] / height)
        return Canvas(self.picture.resize(size, resample), window)


def upsampled(grid: Floats, canvas: Canvas) -> Floats:
    """A grid of tokens at the resolution of a picture, bilinearly between the centres of tokens; beyond the outermost
    centres their values go on."""
    left, top, right, bottom = canvas.frame
    rows = _weights(grid.shape[0], top, bottom, canvas.picture.height)
    columns = _weights(grid.shape[1], left, right, canvas.picture.width)
    large: Floats = rows.T @ np.asarray(grid, dtype=np.float64) @ columns
    return large


def _weights(tokens: int, start: float, stop: float, pixels: int) -> Floats:
    """How much of each token each pixel shows, ``[token, pixel]``, where the tokens lie between start and stop."""
    places = (np.arange(pixels) + 0.5 - start) / (stop - start) * tokens - 0.5
    return np.stack([np.interp(places, np.arange(tokens), one) for one in np.eye(tokens)])


def overlay(canvas: Canvas, grid: Floats, *, signed: bool, largest: float | None = None) -> Image.Image:
    """A map laid over its picture at the picture's own resolution.

        overlay(Canvas(trace.picture(0)), trace.map("cat").values[0], signed=True).save("cat.png")

    Unsigned maps go from 0 to ``largest`` (the map's own when left out) in a perceptually even colour map; signed ones
    from minus to plus that, blue against and orange for the class, and nothing where the map is 0. The stronger the
    value the more of the colour shows. What the model never saw is pale and without colour.
    """
    values = upsampled(grid, canvas)
    limit = (float(np.abs(grid).max()) if largest is None else largest) or 1.0
    strength = np.clip(np.abs(values) / limit, 0, 1)[..., None]
    colour = _colours(signed)(_norm(signed, limit)(values))[..., :3]
    grey = np.asarray(canvas.picture.convert("L"), dtype=np.float64)[..., None] / 255
    opacity = _OPACITY * strength if signed else np.full_like(strength, _OPACITY)
    mixed = (grey * 0.72 + 0.2) * (1 - opacity) + colour * opacity
    unseen = canvas.unseen
    mixed[unseen] = grey[unseen] * _UNSEEN[0] + _UNSEEN[1]
    return Image.fromarray((255 * np.clip(mixed, 0, 1)).round().astype(np.uint8))


def _colours(signed: bool) -> Colormap:
    return SIGNED if signed else colormaps["inferno"]


def _norm(signed: bool, limit: float) -> Normalize:
    return Normalize(-limit, limit) if signed else Normalize(0, limit)


def side_by_side(
    canvas: Canvas, maps: Mapping[str, tuple[Floats, bool]], title: str, *, contour: bool = False
) -> Figure:
    """The picture and one map a method, each with a scale of its own; ``maps`` by the name to show: its grid, and if it
    is signed."""
    count = len(maps) + 1
    rows = -(-count // 5)
    columns = -(-count // rows)
    picture = canvas.picture
    # A tower would make a figure that no screen shows.
    tall = min(picture.height / picture.width, 2)
    figure = Figure(figsize=(2.25 * columns, rows * (2.1 * tall + 0.55) + 0.35), layout="constrained")
    panels = [axes for row in figure.subplots(rows, columns, squeeze=False) for axes in row]
    for axes in panels:
        axes.set_axis_off()
    smooth = "nearest" if max(picture.size) < 97 else "antialiased"
    panels[0].imshow(picture, interpolation=smooth)
    panels[0].set_title("image", fontsize=9)
    for axes, (name, (grid, signed)) in zip(panels[1:], maps.items(), strict=False):
        limit = float(np.abs(grid).max()) or 1.0
        axes.imshow(overlay(canvas, grid, signed=signed), interpolation=smooth)
        if contour:
            levels = [limit * level for level in _LEVELS]
            seen = np.ma.masked_array(upsampled(grid, canvas), canvas.unseen)
            axes.contour(seen, levels=levels, colors="white", linewidths=0.8)
        axes.set_title(textwrap.fill(name, 30), fontsize=9, parse_math=False)
        bar = figure.colorbar(
            ScalarMappable(_norm(signed, limit), _colours(signed)),
            ax=axes,
            orientation="horizontal",
            pad=0.02,
            aspect=14,
        )
        bar.ax.tick_params(labelsize=6.5)
        bar.ax.xaxis.get_offset_text().set_fontsize(6.5)
        bar.locator = FixedLocator([-limit, 0, limit] if signed else [0, limit])
        bar.formatter.set_powerlimits((-2, 3))  # type: ignore[attr-defined]
        bar.update_ticks()
    # A name that lacks spaces is not cut: figures grow with their title.
    wrapped = textwrap.fill(title, 26 * columns, break_long_words=False)
    figure.suptitle(wrapped, fontsize=11, x=0.01, ha="left", parse_math=False)
    return figure


def frames(canvas: Canvas, grids: Floats, *, signed: bool) -> Iterator[Image.Image]:
    """An overlay for each block, all on one scale, for an animation; ``grids`` is ``[block, row, column]``."""
    limit = float(np.abs(grids).max()) or 1.0
    for grid in grids:
        yield overlay(canvas, grid, signed=signed, largest=limit)
