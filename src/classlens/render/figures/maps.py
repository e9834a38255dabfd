"""Maps of explanations over their pictures: one file for each image and method, side by side, and over blocks."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap, ListedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator
from numpy.typing import NDArray
from PIL import Image

from classlens.models.geometry import Box, Window
from classlens.render.figures.style import OPPOSES, SUPPORTS

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]

_OPACITY = 0.72
# What the model never saw keeps little contrast: neither as dark as nothing in an unsigned map, nor as lively as in a
# signed one.
_UNSEEN = (0.3, 0.3)
# Levels of contours, as shares of the largest value.
_LEVELS = (0.25, 0.5, 0.75)
# Pixels of a picture's longer side for one of a contour's width, and what is put below a frame of an animation.
_CONTOUR = 450
STRIP, _NARROWEST = 46, 300
_DPI = 100


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
        left, top, right, bottom = self.window.visible
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
    """A grid of tokens at the resolution of a picture, bilinearly between the centers of tokens; beyond the outermost
    centers their values go on."""
    left, top, right, bottom = canvas.frame
    rows = _weights(grid.shape[0], top, bottom, canvas.picture.height)
    columns = _weights(grid.shape[1], left, right, canvas.picture.width)
    large: Floats = rows.T @ np.asarray(grid, dtype=np.float64) @ columns
    return large


def _weights(tokens: int, start: float, stop: float, pixels: int) -> Floats:
    """How much of each token each pixel shows, ``[token, pixel]``, where the tokens lie between start and stop."""
    places = (np.arange(pixels) + 0.5 - start) / (stop - start) * tokens - 0.5
    return np.stack([np.interp(places, np.arange(tokens), one) for one in np.eye(tokens)])


def overlay(
    canvas: Canvas, grid: Floats, *, signed: bool, largest: float | None = None, contour: float = 0
) -> Image.Image:
    """A map laid over its picture at the picture's own resolution.

        overlay(Canvas(trace.picture(0)), trace.map("cat").values[0], signed=True).save("cat.png")

    Unsigned maps go from 0 to ``largest`` (the map's own when left out) in a perceptually even color map; signed ones
    from minus to plus that, blue against and orange for the class, the more opaque the stronger, and nothing where the
    map is 0. What the model never saw is pale and without color. ``contour`` adds lines at a quarter, half and three
    quarters of ``largest``, dashed below 0, as many times as wide as they are by themselves.
    """
    values = upsampled(grid, canvas)
    limit = (float(np.abs(grid).max()) if largest is None else largest) or 1.0
    gray = np.asarray(canvas.picture.convert("L"), dtype=np.float64) / 255
    mixed = _mixed(gray, values / limit, signed)
    unseen = canvas.unseen
    mixed[unseen] = gray[unseen, None] * _UNSEEN[0] + _UNSEEN[1]
    if contour:
        lines = _contours(np.ma.masked_array(values, unseen), limit, signed, contour)
        mixed = mixed * (1 - lines[..., 3:]) + lines[..., :3] * lines[..., 3:]
    return Image.fromarray((255 * np.clip(mixed, 0, 1)).round().astype(np.uint8))


def _mixed(gray: Floats, share: Floats, signed: bool) -> Floats:
    """The colors ``[…, 3]`` of shares of the largest value over the grays of a picture."""
    if signed:
        # The hue tells the sign and the opacity how much: were both to fade, weak values would be a whitish haze.
        color = np.where(share[..., None] > 0, to_rgb(SUPPORTS), to_rgb(OPPOSES))
        opacity = _OPACITY * np.clip(np.abs(share), 0, 1)[..., None]
    else:
        color = colormaps["inferno"](np.clip(share, 0, 1))[..., :3]
        opacity = np.full((*share.shape, 1), _OPACITY)
    mixed: Floats = (gray[..., None] * 0.72 + 0.2) * (1 - opacity) + color * opacity
    return mixed


def _scale(signed: bool, limit: float) -> ScalarMappable:
    """The colors of a map over middle gray, for its bar."""
    share = np.linspace(-1 if signed else 0, 1, 256)
    colors: Colormap = ListedColormap(_mixed(np.full(256, 0.5), share, signed))
    return ScalarMappable(Normalize(-limit if signed else 0, limit), colors)


def _bar(figure: Figure, signed: bool, limit: float, **place: Any) -> Colorbar:
    """A horizontal color bar with the largest value, 0, and in signed maps the smallest."""
    bar = figure.colorbar(_scale(signed, limit), orientation="horizontal", **place)
    bar.ax.tick_params(labelsize=6.5)
    bar.ax.xaxis.get_offset_text().set_fontsize(6.5)
    bar.locator = FixedLocator([-limit, 0, limit] if signed else [0, limit])
    bar.formatter.set_powerlimits((-2, 3))  # type: ignore[attr-defined]
    bar.update_ticks()
    return bar


def _contours(values: np.ma.MaskedArray[Any, Any], limit: float, signed: bool, times: float) -> Floats:
    """Lines of equal value as a layer ``[row, column, rgba]``: thin and white with a dark seam, to be seen anywhere."""
    height, width = values.shape
    figure, axes = _blank(width, height)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    pixels = times * max(1.2, max(height, width) / _CONTOUR)
    for sign in (1, -1) if signed else (1,):
        inside = [sign * limit * level for level in _LEVELS if values.min() < sign * limit * level < values.max()]
        if inside:
            lines = axes.contour(
                values,
                levels=sorted(inside),
                colors="white",
                linewidths=pixels * 72 / _DPI,
                linestyles="solid" if sign > 0 else "dashed",
                alpha=0.9,
            )
            seam = withStroke(linewidth=2.2 * pixels * 72 / _DPI, foreground="black", alpha=0.35)
            lines.set(path_effects=[seam])
    return _drawn(figure)


def _blank(width: int, height: int) -> tuple[Figure, Axes]:
    """A figure of so many pixels without anything on it, and axes that fill it."""
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    figure.patch.set_alpha(0)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    return figure, axes


def _drawn(figure: Figure) -> Floats:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba(), dtype=np.float64) / 255  # type: ignore[no-untyped-call]


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
        # Panels are smaller than what is drawn on them.
        axes.imshow(overlay(canvas, grid, signed=signed, contour=1.7 * contour), interpolation=smooth)
        axes.set_title(textwrap.fill(name, 30), fontsize=9, parse_math=False)
        _bar(figure, signed, limit, ax=axes, pad=0.02, aspect=14)
    # A name that lacks spaces is not cut: figures grow with their title.
    wrapped = textwrap.fill(title, 26 * columns, break_long_words=False)
    figure.suptitle(wrapped, fontsize=11, x=0.01, ha="left", parse_math=False)
    return figure


def frames(
    canvas: Canvas, grids: Floats, blocks: Sequence[int], *, signed: bool, contour: bool = False
) -> Iterator[Image.Image]:
    """An overlay for each block, all on one scale, for an animation; ``grids`` is ``[block, row, column]``.

    Below each stand the number of the block and the scale.
    """
    limit = float(np.abs(grids).max()) or 1.0
    width, height = canvas.picture.size
    whole = max(width, _NARROWEST)
    for grid, block in zip(grids, blocks, strict=True):
        frame = Image.new("RGB", (whole, height + STRIP), "white")
        frame.paste(overlay(canvas, grid, signed=signed, largest=limit, contour=contour), ((whole - width) // 2, 0))
        frame.paste(_strip(whole, f"block {block} of {blocks[0]}–{blocks[-1]}", signed, limit), (0, height))
        yield frame


def _strip(width: int, text: str, signed: bool, limit: float) -> Image.Image:
    figure, axes = _blank(width, STRIP)
    figure.patch.set(alpha=1, facecolor="white")
    axes.text(10 / width, 0.5, text, fontsize=9.5, va="center")
    start = 140 / width
    _bar(figure, signed, limit, cax=figure.add_axes((start, 0.55, 1 - start - 36 / width, 0.28)))
    return Image.fromarray((255 * _drawn(figure)[..., :3]).round().astype(np.uint8))
