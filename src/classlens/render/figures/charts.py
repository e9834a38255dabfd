"""Figures of experiments, each from its table and the settings of its chart alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from classlens.analysis.charts import LABELS, Chart, Dots, Heat, Lines
from classlens.render.figures.style import CLS_COLOUR, IMAGE_COLOUR, MUTED, plain

# Of Okabe and Ito's palette for all kinds of color vision; those of `[CLS]` and image tokens speak for them alone.
_PALETTE = ("#0072b2", "#d55e00", "#e69f00", "#56b4e9", "#8c6d1f", "#5b5b5b", "#a23b72", "#1b7f8c")
_READINGS = {"tuned": "#e69f00", "probe": "#d55e00", "probe_pooled": "#a23b72", "probe_logistic": "#1b7f8c"}
_FIXED: Mapping[str, str] = {
    "cls": CLS_COLOUR,
    "image": IMAGE_COLOUR,
    "clean": "#0072b2",
    "unedited": "#0072b2",
    "edited": "#d55e00",
    "self_only": "#d55e00",
    "no_cls": "#e69f00",
    "random_init": "#8a8f98",
    **_READINGS,
    "random": "#8a8f98",
    "class_gradient": "#14171b",
    "attn": "#0072b2",
    "attention": "#0072b2",
    "mlp": "#d55e00",
    "class": "#d55e00",
    "context": "#0072b2",
    "by_random_class": "#8a8f98",
    "none": "#14171b",
    "mean": "#14171b",
    **{f"stored_rank:condition={name}": color for name, color in _READINGS.items()},
}
_MOST_CLASSES = 30
_SMALL = 8.5


@dataclass(frozen=True)
class _Panel:
    axes: Axes
    table: pd.DataFrame
    title: str
    first: bool
    """Of its row, so that it carries the label of the values."""


def draw(chart: Chart, table: pd.DataFrame, title: str) -> Figure | None:
    """One figure of a table; None where the table has none of its rows, or one model where models are compared.

        draw(EXPERIMENTS["evolution"].charts[0], pd.read_parquet("evolution.parquet"), "Evolution")

    Blocks are counted from 1 on axes, as in the paper; bands and bars are the intervals of the table.
    """
    for column, values in chart.where.items():
        table = table[table[column].isin(values)]
        table = table.assign(**{column: pd.Categorical(table[column], list(values), ordered=True)})
        table = table.sort_values(column, kind="stable").astype({column: object})
    alone = isinstance(chart, Lines) and chart.color == "model" and table["model"].nunique() < 2
    if table.empty or alone:
        return None
    drawn: Figure = _DRAWN[type(chart)](chart, table)
    drawn.suptitle(title, fontsize=11, x=0.01, ha="left", parse_math=False)
    return drawn


def _lines(chart: Lines, table: pd.DataFrame) -> Figure:
    figure, panels = _panels(chart, table, width=3.5, height=2.5)
    colors = _colors(table[chart.color])
    for panel in panels:
        axes = panel.axes
        for (color, dash), series in _series(panel.table, chart):
            series = series.sort_values(chart.x)
            x = series[chart.x] + 1 if chart.x == "block" else series[chart.x]
            mean = color == "mean"
            style = {"linestyle": "--", "linewidth": 1.3} if dash else {"linewidth": 2.4 if mean else 1.6}
            marker = "" if dash or chart.x != "block" else "o"
            axes.plot(x, series["value"], color=colors[color], marker=marker, markersize=3.2, **style)
            if "low" in series and not mean:
                axes.fill_between(x, series["low"], series["high"], color=colors[color], alpha=0.22, linewidth=0)
        for chance in _chances(panel.table):
            axes.axhline(chance, color=MUTED, linestyle=":", linewidth=1)
        if chart.whole:
            axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel("block" if chart.x == "block" else chart.x_label, fontsize=9)
        if chart.x == "block":
            blocks = sorted(panel.table["block"].unique() + 1)
            axes.set_xticks(blocks[:: -(-len(blocks) // 8)])
        _finish(panel, chart.value, grid="y")
    _legend(figure, table, chart.color, colors, chart.dash)
    return figure


def _series(table: pd.DataFrame, chart: Lines) -> Iterator[tuple[tuple[str, bool], pd.DataFrame]]:
    for color, rows in table.groupby(chart.color, sort=False):
        if chart.dash is None:
            yield (str(color), False), rows
            continue
        for dash, some in rows.groupby(chart.dash, sort=False):
            yield (str(color), dash != "clean"), some


def _dots(chart: Dots, table: pd.DataFrame) -> Figure:
    names = _named(table, chart.labels).unique()
    colors = _colors(table[chart.color])
    figure, panels = _panels(chart, table, width=6.4, height=0.65 + 0.13 * len(colors) * len(names) + 0.16 * len(names))
    step = 0.62 / max(1, len(colors) - 1)
    for panel in panels:
        axes = panel.axes
        for number, (value, color) in enumerate(colors.items()):
            rows = panel.table[panel.table[chart.color] == value]
            place = pd.Series(range(len(names)), index=names)[_named(rows, chart.labels)].to_numpy(dtype=float)
            place += step * (number - (len(colors) - 1) / 2)
            axes.hlines(place, rows["low"], rows["high"], color=color, linewidth=2, alpha=0.5)
            axes.plot(rows["value"], place, "o", color=color, markersize=5)
        for chance in _chances(panel.table):
            axes.axvline(chance, color=MUTED, linestyle=":", linewidth=1)
        axes.set_yticks(range(len(names)), [plain(name) for name in names], fontsize=_SMALL)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel(chart.value if panel is panels[-1] else "", fontsize=9)
        _finish(panel, "", grid="x")
    _legend(figure, table, chart.color, colors, None)
    return figure


def _named(table: pd.DataFrame, labels: Sequence[str]) -> pd.Series[str]:
    parts = [table[label].map(lambda one: LABELS.get(one, one)) for label in labels]
    return parts[0].str.cat(parts[1:], sep=": ")


def _heat(chart: Heat, table: pd.DataFrame) -> Figure:
    names = min(_MOST_CLASSES, table[chart.y].nunique())
    figure, panels = _panels(chart, table, width=3.9, height=0.8 + 0.19 * names)
    norm = Normalize(0, float(table["value"].max()) or 1)
    for panel in panels:
        grid = panel.table.pivot_table(index=chart.y, columns=chart.x, values="value", sort=False)
        grid = grid.sort_values(grid.columns[-1], ascending=False, kind="stable")
        cut = len(grid) > _MOST_CLASSES
        if cut:
            half = _MOST_CLASSES // 2
            grid = pd.concat([grid.iloc[:half], grid.iloc[-half:]])
            panel.axes.axhline(half - 0.5, color="white", linewidth=2.5)
        panel.axes.imshow(grid.to_numpy(), cmap="cividis", norm=norm, aspect="auto", interpolation="nearest")
        panel.axes.set_yticks(range(len(grid)), [plain(str(name))[:24] for name in grid.index], fontsize=7.5)
        blocks = grid.columns.to_numpy()
        shown = np.arange(0, len(blocks), -(-len(blocks) // 12))
        panel.axes.set_xticks(shown, [str(blocks[one] + 1) for one in shown], fontsize=8)
        panel.axes.set_xlabel("block", fontsize=9)
        panel.axes.set_title(panel.title, fontsize=9, loc="left", parse_math=False)
        panel.axes.tick_params(length=2)
    bar = figure.colorbar(ScalarMappable(norm, "cividis"), ax=[panel.axes for panel in panels], shrink=0.6, aspect=30)
    bar.set_label(chart.value, fontsize=9)
    return figure


def _panels(chart: Chart, table: pd.DataFrame, *, width: float, height: float) -> tuple[Figure, list[_Panel]]:
    """A panel for each model and row; more models than fit side by side go on below."""
    models = [None] if chart.columns is None else list(table[chart.columns].unique())
    rows = [None] if chart.rows is None else list(table[chart.rows].unique())
    columns = min(len(models), chart.across)
    lines = -(-len(models) // columns)
    figure = Figure(figsize=(max(5.2, width * columns + 0.4), height * len(rows) * lines + 0.9), layout="constrained")
    grid = figure.subplots(len(rows) * lines, columns, squeeze=False, sharey=not isinstance(chart, Heat | Dots))
    for axes in grid.flat:
        axes.set_visible(False)
    found = []
    for row, label in enumerate(rows):
        for number, model in enumerate(models):
            chosen = table if label is None else table[table[chart.rows] == label]
            chosen = chosen if model is None else chosen[chosen[chart.columns] == model]
            if chosen.empty:
                continue
            axes = grid[row * lines + number // columns, number % columns]
            axes.set_visible(True)
            parts = [None if label is None else LABELS.get(label, label), None if model is None else plain(model)]
            title = "\n".join(part for part in parts if part)
            found.append(_Panel(axes, chosen, title, number % columns == 0))
    return figure, found


def _finish(panel: _Panel, value: str, *, grid: str) -> None:
    axes = panel.axes
    axes.set_title(panel.title, fontsize=9, loc="left", parse_math=False)
    if panel.first:
        axes.set_ylabel(fill(value, 34), fontsize=9)
    axes.tick_params(labelsize=_SMALL)
    axes.grid(axis=grid, alpha=0.25)  # type: ignore[arg-type]
    axes.spines[["top", "right"]].set_visible(False)


def _colors(values: pd.Series[Any]) -> dict[str, str]:
    """A color for each value; the same value has the same color in every figure."""
    taken = {_FIXED[str(value)] for value in values.unique() if str(value) in _FIXED}
    free = cycle([color for color in _PALETTE if color not in taken])
    return {str(value): _FIXED.get(str(value)) or next(free) for value in values.unique()}


def _chances(table: pd.DataFrame) -> list[float]:
    return [] if "chance" not in table else [float(one) for one in table["chance"].dropna().unique()]


def _legend(figure: Figure, table: pd.DataFrame, color: str, colors: Mapping[str, str], dash: str | None) -> None:
    handles = [
        Line2D([], [], color=one, linewidth=2.2, label=plain(LABELS.get(value, value))) for value, one in colors.items()
    ]
    if dash is not None and table[dash].nunique() > 1:
        for value in table[dash].unique():
            label = LABELS.get(value, value)
            handles.append(Line2D([], [], color=MUTED, linestyle="-" if value == "clean" else "--", label=label))
    if _chances(table):
        handles.append(Line2D([], [], color=MUTED, linestyle=":", label="chance: 1 in C classes"))
    if len(handles) > 1 or color == "tokens":
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=len(handles) if len(handles) < 5 else 3,
            fontsize=_SMALL,
            frameon=False,
        )


_DRAWN: Mapping[type[Chart], Any] = {Lines: _lines, Dots: _dots, Heat: _heat}
