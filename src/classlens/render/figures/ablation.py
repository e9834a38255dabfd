"""Figures of an ablation: effects by head, direct against total effect, and accuracy that tests lose."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from classlens import palette
from classlens.render.figures.style import DIVERGING
from classlens.tasks.ablation.result import AblateResult
from classlens.tasks.ablation.scores import CHANCE, HEAD_SCORES
from classlens.tasks.ablation.tables import ALL

_LOG_ODDS = "log odds of the label"
_MAX_NUMBERS = 12
"""Heads of a block up to which each effect has its number."""
_NAMED = 4
"""Heads that are named in a scatter: those with the largest effects."""


def effects(result: AblateResult) -> Figure:
    """Mean total and direct effects of every head over all images, on scales centered at 0.

    ``effects(classlens.ablate("builtin:photos", data, "out", to="means.safetensors"))``
    """
    grids = [_grid(result.effects, score) for score in ("ablation", "attribution")]
    blocks, heads = grids[0].shape
    figure = Figure(figsize=(1.6 + 0.9 * heads, 1.5 + 0.3 * blocks), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    titles = ("total effect: ablation", "direct effect: attribution")
    for axes, grid, title in zip(panels, grids, titles, strict=True):
        limit = float(np.abs(grid).max()) or 1.0
        axes.imshow(grid, cmap=DIVERGING, norm=Normalize(-limit, limit), aspect="auto", interpolation="nearest")
        for (block, head), value in np.ndenumerate(grid):
            if heads <= _MAX_NUMBERS:
                text = f"{value:.1f}".replace("-0.0", "0.0").replace("-", "−")
                axes.text(head, block, text, ha="center", va="center", fontsize=6.5, color=palette.BLACK)
        axes.set_xticks(range(heads))
        axes.set_yticks(range(blocks))
        axes.set_xlabel("head", fontsize=9)
        axes.set_title(title, fontsize=9, loc="left")
        axes.tick_params(length=2, labelsize=8)
        bar = figure.colorbar(ScalarMappable(Normalize(-limit, limit), DIVERGING), ax=axes, aspect=30, pad=0.02)
        bar.ax.tick_params(labelsize=8)
    bar.set_label(_LOG_ODDS, fontsize=9)
    panels[0].set_ylabel("block", fontsize=9)
    return figure


def agreement(result: AblateResult) -> Figure:
    """Every score of every head against its ablation: means over all images, with their rank correlation.

    ``agreement(classlens.ablate("builtin:photos", data, "out", to="means.safetensors"))``
    """
    names = [name for name in HEAD_SCORES if name != "ablation"]
    figure = Figure(figsize=(0.5 + 3.1 * len(names), 3.4), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    total = _grid(result.effects, "ablation")
    depth = Normalize(0, len(total) - 1)
    correlation = result.agreement[result.agreement["measure"] == "mean"].set_index("score")
    for axes, name in zip(panels, names, strict=True):
        values = _grid(result.effects, name)
        colors = np.repeat(np.arange(len(total)), total.shape[1])
        axes.scatter(values.ravel(), total.ravel(), c=colors, cmap="cividis", norm=depth, s=22, linewidths=0)
        for index in np.argsort(-np.abs(total), axis=None, kind="stable")[:_NAMED]:
            block, head = np.unravel_index(index, total.shape)
            axes.annotate(
                f"{block}.{head}",
                (values[block, head], total[block, head]),
                (3, 3),
                textcoords="offset points",
                fontsize=7.5,
            )
        row = correlation.loc[name]
        label = HEAD_SCORES[name].label
        title = f"{label}: ρ = {row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f})".replace("-", "−")
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xlabel(label, fontsize=9)
        _plain(axes)
    panels[0].set_ylabel(f"ablation: {_LOG_ODDS}", fontsize=9)
    bar = figure.colorbar(ScalarMappable(depth, "cividis"), ax=list(panels), aspect=30, pad=0.01)
    bar.set_label("block", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return figure


def held_out(result: AblateResult) -> Figure:
    """Accuracy and log odds that the testing half loses without the heads chosen for a class.

    ``held_out(classlens.ablate("builtin:photos", data, "out", to="means.safetensors"))``
    """
    of_all = result.held_out[result.held_out["class"] == ALL]
    names = [*HEAD_SCORES, CHANCE]
    figure = Figure(figsize=(9.4, 1.2 + 0.42 * len(names)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    kinds = (("of the class", palette.VERMILLION, -0.12), ("of others", palette.BLUE, 0.12))
    for axes, (measure, table) in zip(panels, of_all.groupby("measure", sort=False), strict=True):
        for kind, color, offset in kinds:
            rows = table[table["images"] == kind].set_index("score").loc[names]
            y = np.arange(len(names)) + offset
            axes.hlines(y, rows["low"], rows["high"], color=color, linewidth=2, alpha=0.5)
            axes.plot(rows["drop"], y, "o", color=color, markersize=5, label=f"images {kind}")
        axes.axvline(0, color=palette.MUTED, linestyle=":", linewidth=1)
        axes.set_xlabel(f"{measure} lost without {result.settings['heads']} heads", fontsize=9)
        _plain(axes)
    labels = [HEAD_SCORES[name].label if name in HEAD_SCORES else "random heads" for name in names]
    panels[0].set_yticks(range(len(names)), labels)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    figure.legend(
        *panels[0].get_legend_handles_labels(), fontsize=8.5, frameon=False, loc="outside upper right", ncols=2
    )
    return figure


def _grid(table: pd.DataFrame, score: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """``[block, head]``: means over all images."""
    rows = table[(table["images"] == ALL) & (table["score"] == score)]
    grid: np.ndarray[tuple[int, int], np.dtype[np.float64]] = rows.pivot(
        index="block", columns="head", values="value"
    ).to_numpy(dtype=float)
    return grid


def _plain(axes: Axes) -> None:
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
