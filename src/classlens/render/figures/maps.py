"""Explanation maps over their pictures: one map, several methods side by side, and one frame for each block."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator
from numpy.typing import NDArray
from PIL import Image

from classlens.models.geometry import Box, Window
from classlens.render.figures.blending import Floats, blended, color_scale, faded
from classlens.render.figures.style import interpolation

Bools = NDArray[np.bool_]

# Contrast and brightness of pixels outside the model's input: unlike zero in an unsigned map (dark) and in a signed one
# (full contrast).
_UNSEEN = (0.3, 0.3)
# Levels of contours, as shares of the largest value.
_LEVELS = (0.25, 0.5, 0.75)
# A contour is one pixel wide for each of so many pixels of the picture's longer side.
_CONTOUR = 450
STRIP = 46
"""Height in pixels of the strip with the color bar below a frame of an animation."""
_MIN_FRAME_WIDTH = 300
_DPI = 100


@dataclass(frozen=True)
class Canvas:
    """A picture that maps are laid over, and the part of it that is the model's input: all of it without ``window``."""

    picture: Image.Image
    window: Window | None = None

    @property
    def frame(self) -> Box:
        """The area that the grid of tokens covers, in pixels of the picture."""
        return Box(0, 0, *self.picture.size) if self.window is None else self.window.frame

    @property
    def unseen(self) -> Bools:
        """Pixels ``[row, column]`` outside the model's input."""
        if self.window is None:
            return np.zeros((self.picture.height, self.picture.width), dtype=bool)
        left, top, right, bottom = self.window.visible
        rows, columns = np.arange(self.picture.height) + 0.5, np.arange(self.picture.width) + 0.5
        seen: Bools = ((rows > top) & (rows < bottom))[:, None] & (columns > left) & (columns < right)
        return ~seen

    def resized(self, longest: int, resample: Image.Resampling) -> Canvas:
        """The canvas with a longer side of ``longest`` pixels."""
        width, height = self.picture.size
        scale = longest / max(width, height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        window = None if self.window is None else self.window.scaled(size[0] / width, size[1] / height)
        return Canvas(self.picture.resize(size, resample), window)


def upsampled(grid: Floats, canvas: Canvas) -> Floats:
    """A grid of tokens at the resolution of a picture: bilinear between the centers of tokens, and constant beyond the
    outermost centers."""
    left, top, right, bottom = canvas.frame
    rows = _weights(grid.shape[0], top, bottom, canvas.picture.height)
    columns = _weights(grid.shape[1], left, right, canvas.picture.width)
    pixels: Floats = rows.T @ np.asarray(grid, dtype=np.float64) @ columns
    return pixels


def _weights(tokens: int, start: float, stop: float, pixels: int) -> Floats:
    """Weight of each token at each pixel, ``[token, pixel]``, for tokens that lie between start and stop."""
    positions = (np.arange(pixels) + 0.5 - start) / (stop - start) * tokens - 0.5
    return np.stack([np.interp(positions, np.arange(tokens), basis) for basis in np.eye(tokens)])


def overlay(
    canvas: Canvas, grid: Floats, *, signed: bool, largest: float | None = None, contour: float = 0
) -> Image.Image:
    """A map laid over its picture at the picture's own resolution.

    ``overlay(Canvas(trace.picture(0)), trace.map("cat").values[0], signed=True).save("cat.png")``

    Unsigned maps go from 0 to ``largest`` (the map's own without it) in a perceptually uniform color map. Signed maps
    go from ``-largest`` to ``largest``: blue against the class, orange for it, more opaque for larger values, and
    transparent at 0. Pixels outside the model's input are pale and gray. ``contour`` adds lines at a quarter, half and
    three quarters of ``largest``, dashed below 0; it is a factor of their width.
    """
    values = upsampled(grid, canvas)
    limit = (float(np.abs(grid).max()) if largest is None else largest) or 1.0
    colors = blended(faded(canvas.picture), values / limit, signed)
    unseen = canvas.unseen
    gray = np.asarray(canvas.picture.convert("L"), dtype=np.float64) / 255
    colors[unseen] = gray[unseen, None] * _UNSEEN[0] + _UNSEEN[1]
    if contour:
        lines = _contours(np.ma.masked_array(values, unseen), limit, signed, contour)
        colors = colors * (1 - lines[..., 3:]) + lines[..., :3] * lines[..., 3:]
    return Image.fromarray((255 * np.clip(colors, 0, 1)).round().astype(np.uint8))


def _color_bar(figure: Figure, signed: bool, limit: float, **position: Any) -> Colorbar:
    """A horizontal color bar with ticks at the largest value, at 0, and for signed maps at the smallest."""
    bar = figure.colorbar(color_scale(signed, limit), orientation="horizontal", **position)
    bar.ax.tick_params(labelsize=6.5)
    bar.ax.xaxis.get_offset_text().set_fontsize(6.5)
    bar.locator = FixedLocator([-limit, 0, limit] if signed else [0, limit])
    bar.formatter.set_powerlimits((-2, 3))  # type: ignore[attr-defined]
    bar.update_ticks()
    return bar


def _contours(values: np.ma.MaskedArray[Any, Any], limit: float, signed: bool, width_factor: float) -> Floats:
    """Lines of equal value as a layer ``[row, column, rgba]``: white with a dark seam, to be visible on any color."""
    height, width = values.shape
    figure, axes = _blank_figure(width, height)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    pixels = width_factor * max(1.2, max(height, width) / _CONTOUR)
    for sign in (1, -1) if signed else (1,):
        levels = [sign * limit * share for share in _LEVELS if values.min() < sign * limit * share < values.max()]
        if levels:
            lines = axes.contour(
                values,
                levels=sorted(levels),
                colors="white",
                linewidths=pixels * 72 / _DPI,
                linestyles="solid" if sign > 0 else "dashed",
                alpha=0.9,
            )
            seam = withStroke(linewidth=2.2 * pixels * 72 / _DPI, foreground="black", alpha=0.35)
            lines.set(path_effects=[seam])
    return _pixels(figure)


def _blank_figure(width: int, height: int) -> tuple[Figure, Axes]:
    """An empty figure of a size in pixels, and axes that fill it."""
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    figure.patch.set_alpha(0)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    return figure, axes


def _pixels(figure: Figure) -> Floats:
    """The drawn figure, ``[row, column, rgba]`` in 0 to 1."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba(), dtype=np.float64) / 255  # type: ignore[no-untyped-call]


def side_by_side(
    canvas: Canvas, maps: Mapping[str, tuple[Floats, bool]], title: str, *, contour: bool = False
) -> Figure:
    """The picture and a map for each method, each with its own scale; ``maps``: by title, its grid and whether it is
    signed."""
    count = len(maps) + 1
    rows = -(-count // 5)
    columns = -(-count // rows)
    picture = canvas.picture
    # Very tall pictures are drawn smaller, so that the figure fits a screen.
    aspect = min(picture.height / picture.width, 2)
    figure = Figure(figsize=(2.25 * columns, rows * (2.1 * aspect + 0.55) + 0.35), layout="constrained")
    panels = [axes for row in figure.subplots(rows, columns, squeeze=False) for axes in row]
    for axes in panels:
        axes.set_axis_off()
    smoothing = interpolation(max(picture.size))
    panels[0].imshow(picture, interpolation=smoothing)
    panels[0].set_title("image", fontsize=9)
    for axes, (name, (grid, signed)) in zip(panels[1:], maps.items(), strict=False):
        limit = float(np.abs(grid).max()) or 1.0
        # Contours are wider here, as a panel is smaller than the overlay that it shows.
        axes.imshow(overlay(canvas, grid, signed=signed, contour=1.7 * contour), interpolation=smoothing)
        axes.set_title(textwrap.fill(name, 30), fontsize=9, parse_math=False)
        _color_bar(figure, signed, limit, ax=axes, pad=0.02, aspect=14)
    # Long words are not cut: the saved figure grows with its title.
    wrapped = textwrap.fill(title, 26 * columns, break_long_words=False)
    figure.suptitle(wrapped, fontsize=11, x=0.01, ha="left", parse_math=False)
    return figure


def frames(
    canvas: Canvas, grids: Floats, blocks: Sequence[int], *, signed: bool, contour: bool = False
) -> Iterator[Image.Image]:
    """An overlay for each block, all on one scale, for an animation; ``grids`` is ``[block, row, column]``.

    A strip below shows the number of the block and the scale.
    """
    limit = float(np.abs(grids).max()) or 1.0
    width, height = canvas.picture.size
    frame_width = max(width, _MIN_FRAME_WIDTH)
    for grid, block in zip(grids, blocks, strict=True):
        frame = Image.new("RGB", (frame_width, height + STRIP), "white")
        picture = overlay(canvas, grid, signed=signed, largest=limit, contour=contour)
        frame.paste(picture, ((frame_width - width) // 2, 0))
        frame.paste(_strip(frame_width, f"block {block} of {blocks[0]}–{blocks[-1]}", signed, limit), (0, height))
        yield frame


def _strip(width: int, text: str, signed: bool, limit: float) -> Image.Image:
    figure, axes = _blank_figure(width, STRIP)
    figure.patch.set(alpha=1, facecolor="white")
    axes.text(10 / width, 0.5, text, fontsize=9.5, va="center")
    start = 140 / width
    _color_bar(figure, signed, limit, cax=figure.add_axes((start, 0.55, 1 - start - 36 / width, 0.28)))
    return Image.fromarray((255 * _pixels(figure)[..., :3]).round().astype(np.uint8))
