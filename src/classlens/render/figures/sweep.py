"""Figures of causal sweeps: effects by block and part, over the picture for tokens, and the largest of units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from PIL import Image

from classlens import palette
from classlens.errors import ClasslensError
from classlens.render.figures.blending import SIGNED, Floats, color_scale, faded
from classlens.render.figures.style import DIVERGING, interpolation, plain, save
from classlens.render.sweep_words import equal, equal_words, estimate_words, metric_words, part_labels, percent

Record = Mapping[str, Any]

_UNDEFINED = "#d5dbe1"
_WIDTH = 8.4
"""Width in inches that the panels of a figure share."""
_MAX_LABELS = 32
"""Parts of a block up to which each has a tick, and each effect its number."""


def save_figures(record: Record, pictures: Sequence[Image.Image], folder: Path) -> list[Path]:
    """Write ``01-effects.png`` of every image, and ``01-tokens.png`` where tokens were swept; returns their paths.

    ``pictures[i]`` is the clean picture of ``record["images"][i]``, as the model sees it. Raises ``ClasslensError``
    where their numbers differ or the folder cannot be written.
    """
    if len(pictures) != len(record["images"]):
        raise ClasslensError(
            f"{len(pictures)} pictures were given for {len(record['images'])} images of the record: "
            "give one picture an image"
        )
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, (image, picture) in enumerate(zip(record["images"], pictures, strict=True), start=1):
            drawn = {"effects": largest_units(record, image) if record["over"] == "units" else effects(record, image)}
            if record["over"] == "tokens":
                drawn["tokens"] = tokens(record, image, picture)
            for kind, figure in drawn.items():
                paths.append(folder / f"{number:02d}-{kind}.png")
                save(figure, paths[-1])
    except OSError as error:
        reason = f"({error.strerror}): give another folder"
        raise ClasslensError(f"figures cannot be written to {str(folder)!r} {reason}") from None
    return paths


def effects(record: Record, image: Record) -> Figure:
    """Effects by block and part, on one scale centered at 0; blocks go down, parts to the right.

    ``effects(record, record["images"][0])``

    Effects that are not defined are gray.
    """
    values, labels = _values(image), part_labels(record, image)
    few = len(labels) <= _MAX_LABELS
    figure = Figure(figsize=(max(4.4, 1.6 + (0.5 * len(labels) if few else _WIDTH)), 1.5 + 0.3 * len(values)), dpi=150)
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    limit = float(np.nanmax(np.abs(values), initial=0)) or 1.0
    drawn = axes.imshow(values, cmap=DIVERGING, norm=Normalize(-limit, limit), aspect="auto", interpolation="nearest")
    axes.set_yticks(range(len(values)), [str(block) for block in record["blocks"]], fontsize=8)
    axes.set_ylabel("block")
    if few:
        axes.set_xticks(range(len(labels)), labels, fontsize=8)
        for (row, column), value in np.ndenumerate(values):
            text = "–" if np.isnan(value) else percent(float(value)).removesuffix("%")
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=palette.BLACK)
    elif record["over"] == "tokens":
        _token_ticks(axes, record, image)
    axes.set_xlabel({"heads": "head", "tokens": "token, row by row of the picture"}.get(record["over"], ""))
    axes.tick_params(length=2)
    bar = figure.colorbar(drawn, ax=axes, aspect=30, pad=0.02, format=PercentFormatter(1))
    bar.ax.tick_params(labelsize=8)
    bar.set_label(_effect(record), fontsize=9)
    _title(figure, record, image)
    return figure


def _token_ticks(axes: Axes, record: Record, image: Record) -> None:
    """A tick at the first prefix token, and at the first token of rows of the picture."""
    prefix, (rows, columns) = record["model"]["prefix"], image["grid"]
    places = {position: place for place, position in enumerate(image["parts"])}
    first = [(0, f"[{prefix[0].upper()}]" if len(prefix) == 1 else "special")] if prefix else [(0, "row 0")]
    step = -(-rows // 14)
    starts = [(len(prefix) + row * columns, f"row {row}") for row in range(step, rows, step)]
    shown = [(places[position], label) for position, label in (*first, *starts) if position in places]
    axes.set_xticks([place for place, _ in shown], [label for _, label in shown], fontsize=7)


def tokens(record: Record, image: Record, picture: Image.Image) -> Figure:
    """The effect of every token in each block over the clean picture, and prefix tokens as cells below it.

    ``tokens(record, record["images"][0], trace.picture(0))``

    The scale is that of image tokens; stronger prefix tokens have its last color, and their numbers beside them.
    """
    values, prefix, blocks = _values(image), record["model"]["prefix"], record["blocks"]
    at = {position: place for place, position in enumerate(image["parts"])}
    rows, columns = image["grid"]
    grids = np.full((len(values), rows * columns), np.nan)
    for position, place in at.items():
        if position >= len(prefix):
            grids[:, position - len(prefix)] = values[:, place]
    limit = float(np.nanmax(np.abs(grids), initial=0)) or 1.0
    gray = faded(picture)
    height, width = gray.shape
    across = min(len(blocks), 6 if len(blocks) > 8 else 4)
    down = -(-len(blocks) // across)
    specials = [(name, at[position]) for position, name in enumerate(prefix) if position in at]
    panel = _WIDTH / across * height / width + 0.32 + 0.2 * len(specials)
    figure = Figure(figsize=(10, max(2.6, down * panel + 0.8)), layout="compressed")
    panels = [axes for row in figure.subplots(down, across, squeeze=False) for axes in row]
    for axes in panels:
        axes.set_axis_off()
    norm, extent = Normalize(-limit, limit), (0.0, float(width), float(height), 0.0)
    scale = color_scale(True, limit)
    for axes, block, grid, row in zip(panels, blocks, grids, values, strict=False):
        axes.imshow(gray, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation=interpolation(max(gray.shape)))
        axes.imshow(grid.reshape(rows, columns), extent=extent, interpolation="nearest", cmap=SIGNED, norm=norm)
        axes.set_title(f"block {block}", fontsize=9)
        for line, (name, place) in enumerate(specials):
            value = float(row[place])
            text = f"[{name.upper()}] {'–' if np.isnan(value) else percent(value)}"
            color = scale.to_rgba(np.nan_to_num(row[[place]]))[0]
            axes.text(
                0.5,
                -0.04 - 0.13 * line,
                text,
                transform=axes.transAxes,
                ha="center",
                va="top",
                fontsize=7.5,
                bbox={"facecolor": color, "edgecolor": "none", "pad": 1.8},
            )
    bar = figure.colorbar(scale, ax=panels, shrink=0.8, aspect=30, pad=0.02, format=PercentFormatter(1))
    bar.set_label(f"{_effect(record)} of image tokens", fontsize=9)
    _title(figure, record, image)
    return figure


def largest_units(record: Record, image: Record) -> Figure:
    """The units with the largest effects, the largest on top.

    ``largest_units(record, record["images"][0])``
    """
    largest = image["largest"]
    figure = Figure(figsize=(6.4, 1.4 + 0.19 * max(1, len(largest))), layout="constrained")
    axes = figure.add_subplot()
    values = [unit["effect"] for unit in largest]
    colors = [palette.SUPPORTS if value >= 0 else palette.OPPOSES for value in values]
    bars = axes.barh(range(len(values)), values, color=colors, height=0.75)
    axes.bar_label(bars, [percent(value) for value in values], fontsize=7, padding=3, color=palette.MUTED)
    axes.set_yticks(range(len(values)), [unit["name"] for unit in largest], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.14, y=0.01)
    axes.axvline(0, color=palette.MUTED, linewidth=0.8)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel(_effect(record))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    _title(figure, record, image)
    return figure


def _values(image: Record) -> NDArray[np.float64]:
    """Effects ``[block, part]``, NaN where they are not defined."""
    values: Floats = np.array(image["effect"], dtype=float)
    return np.asarray(values, dtype=np.float64)


def _effect(record: Record) -> str:
    return "estimated effect" if record["approximate"] else "effect"


def _title(figure: Figure, record: Record, image: Record) -> None:
    what, estimate = "effect" if record["direction"] == "denoise" else "effect (noise)", estimate_words(record)
    what = f"{estimate}\nof the {what}" if estimate else what
    names = {**image, "target": {"name": plain(image["target"]["name"])}}
    if image["against"] is not None:
        names["against"] = {"name": plain(image["against"]["name"])}
    pair = f"{plain(image['label'])}, {plain(image['corrupt_label'])}"
    text = f"{what[0].upper()}{what[1:]} on the {metric_words(record, names)}\n{pair}"
    if equal(image):
        text = f"{equal_words(record, names)}\n{pair}".replace(": ", ":\n", 1)
    figure.suptitle(text, fontsize=10, x=0.01, ha="left", parse_math=False)
