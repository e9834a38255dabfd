"""Draws a chart from a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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

from classlens.analysis.charts import Chart, Dots, Heat, Lines, Ribbons
from classlens.analysis.labels import LABELS, Label, label_text
from classlens.palette import MUTED, SERIES
from classlens.render.figures.style import plain
from classlens.tasks.tokens.conditions.registry import CLEAN

Labels = Mapping[str, Label]
_MAX_CLASSES = 30
_SMALL = 8.5
"""Font size of ticks and legends."""


@dataclass(frozen=True)
class _Panel:
    axes: Axes
    table: pd.DataFrame
    title: str
    is_first: bool
    """Whether the panel is the first of its row, which carries the label of the values."""


def draw(chart: Chart, table: pd.DataFrame, title: str, labels: Labels = LABELS) -> Figure | None:
    """A figure of a table; None where the table lacks the chart's rows, or has one model where models are compared.

    ``draw(EXPERIMENTS["evolution"].charts[0], pd.read_parquet("evolution.parquet"), "Evolution")``

    Axes count blocks from 0, as everything does; bands and bars are the intervals of the table.
    """
    for column, values in chart.where.items():
        table = table[table[column].isin(values)]
        table = table.assign(**{column: pd.Categorical(table[column], list(values), ordered=True)})
        table = table.sort_values(column, kind="stable").astype({column: object})
    alone = isinstance(chart, Lines) and chart.color == "model" and table["model"].nunique() < 2
    if table.empty or alone:
        return None
    figure: Figure = _DRAW[type(chart)](chart, table, labels)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left", parse_math=False)
    return figure


def _lines(chart: Lines, table: pd.DataFrame, labels: Labels) -> Figure:
    figure, panels = _panels(chart, table, labels, width=3.5, height=2.5)
    colors = _colors(table[chart.color], labels)
    for panel in panels:
        axes = panel.axes
        for (color, dashed), series in _series(panel.table, chart):
            series = series.sort_values(chart.x)
            x = series[chart.x]
            has_interval = "low" in series and series["low"].notna().any()
            style = {"linestyle": "--", "linewidth": 1.3} if dashed else {"linewidth": 1.6 if has_interval else 2.4}
            marker = "" if dashed or chart.x != "block" else "o"
            axes.plot(x, series["value"], color=colors[color], marker=marker, markersize=3.2, **style)
            if has_interval:
                axes.fill_between(x, series["low"], series["high"], color=colors[color], alpha=0.22, linewidth=0)
        for chance in _chances(panel.table):
            axes.axhline(chance, color=MUTED, linestyle=":", linewidth=1)
        if chart.unit_range:
            axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel("block" if chart.x == "block" else chart.x_label, fontsize=9)
        if chart.x == "block":
            blocks = sorted(panel.table["block"].unique())
            axes.set_xticks(blocks[:: -(-len(blocks) // 8)])
        _finish(panel, chart.value, grid="y")
    _legend(figure, table, chart, colors, labels, chart.dash)
    return figure


def _ribbons(chart: Ribbons, table: pd.DataFrame, labels: Labels) -> Figure:
    figure, panels = _panels(chart, table, labels, width=3.9, height=3.0)
    colors = _colors(table[chart.color], labels)
    for panel in panels:
        # Classes of one name make one ribbon.
        grid = panel.table.pivot_table(index=chart.x, columns=chart.color, values="value", aggfunc="sum", sort=False)
        grid = grid.sort_index()
        shown = [name for name in colors if name in grid]
        panel.axes.stackplot(
            grid.index,
            grid[shown].fillna(0).to_numpy().T,
            colors=[colors[name] for name in shown],
            edgecolor="white",
            linewidth=0.6,
        )
        panel.axes.margins(x=0)
        panel.axes.set_ylim(0, 1)
        panel.axes.set_xlabel("block", fontsize=9)
        panel.axes.set_xticks(grid.index[:: -(-len(grid) // 8)])
        _finish(panel, chart.value, grid="y")
    _legend(figure, table, chart, colors, labels, None)
    return figure


def _series(table: pd.DataFrame, chart: Lines) -> Iterator[tuple[tuple[str, bool], pd.DataFrame]]:
    """The rows of each line, by the value that colors it, and whether it is dashed."""
    for color, rows in table.groupby(chart.color, sort=False):
        if chart.dash is None:
            yield (str(color), False), rows
            continue
        for dash, series in rows.groupby(chart.dash, sort=False):
            yield (str(color), dash != CLEAN), series


def _dots(chart: Dots, table: pd.DataFrame, labels: Labels) -> Figure:
    names = _row_names(table, chart.labels, labels).unique()
    colors = _colors(table[chart.color], labels)
    figure, panels = _panels(
        chart, table, labels, width=6.4, height=0.65 + 0.13 * len(colors) * len(names) + 0.16 * len(names)
    )
    step = 0.62 / max(1, len(colors) - 1)
    for panel in panels:
        axes = panel.axes
        for number, (value, color) in enumerate(colors.items()):
            rows = panel.table[panel.table[chart.color] == value]
            of_name = pd.Series(range(len(names)), index=names)
            y = of_name[_row_names(rows, chart.labels, labels)].to_numpy(dtype=float)
            y += step * (number - (len(colors) - 1) / 2)
            axes.hlines(y, rows["low"], rows["high"], color=color, linewidth=2, alpha=0.5)
            axes.plot(rows["value"], y, "o", color=color, markersize=5)
        for chance in _chances(panel.table):
            axes.axvline(chance, color=MUTED, linestyle=":", linewidth=1)
        axes.set_yticks(range(len(names)), [plain(name) for name in names], fontsize=_SMALL)
        axes.set_ylim(len(names) - 0.5, -0.5)
        if chart.unit_range:
            axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel(chart.value if panel is panels[-1] else "", fontsize=9)
        _finish(panel, "", grid="x")
    _legend(figure, table, chart, colors, labels, None)
    return figure


def _row_names(table: pd.DataFrame, columns: Sequence[str], labels: Labels) -> pd.Series[str]:
    parts = [table[column].map(partial(label_text, labels=labels)) for column in columns]
    return parts[0].str.cat(parts[1:], sep=": ")


def _heat(chart: Heat, table: pd.DataFrame, labels: Labels) -> Figure:
    names = min(_MAX_CLASSES, table[chart.y].nunique())
    figure, panels = _panels(chart, table, labels, width=3.9, height=0.8 + 0.19 * names)
    norm = Normalize(0, float(table["value"].max()) or 1)
    for panel in panels:
        grid = panel.table.pivot_table(index=chart.y, columns=chart.x, values="value", sort=False)
        grid = grid.sort_values(grid.columns[-1], ascending=False, kind="stable")
        if len(grid) > _MAX_CLASSES:
            half = _MAX_CLASSES // 2
            grid = pd.concat([grid.iloc[:half], grid.iloc[-half:]])
            panel.axes.axhline(half - 0.5, color="white", linewidth=2.5)
        panel.axes.imshow(grid.to_numpy(), cmap="cividis", norm=norm, aspect="auto", interpolation="nearest")
        panel.axes.set_yticks(range(len(grid)), [plain(str(name))[:24] for name in grid.index], fontsize=7.5)
        blocks = grid.columns.to_numpy()
        shown = np.arange(0, len(blocks), -(-len(blocks) // 12))
        panel.axes.set_xticks(shown, [str(block) for block in blocks[shown]], fontsize=8)
        panel.axes.set_xlabel("block", fontsize=9)
        panel.axes.set_title(panel.title, fontsize=9, loc="left", parse_math=False)
        panel.axes.tick_params(length=2)
    bar = figure.colorbar(ScalarMappable(norm, "cividis"), ax=[panel.axes for panel in panels], shrink=0.6, aspect=30)
    bar.set_label(chart.value, fontsize=9)
    return figure


def _panels(
    chart: Chart, table: pd.DataFrame, labels: Labels, *, width: float, height: float
) -> tuple[Figure, list[_Panel]]:
    """A panel for each model and row; more models than fit side by side go on below."""
    models = [None] if chart.columns is None else list(table[chart.columns].unique())
    rows = [None] if chart.rows is None else list(table[chart.rows].unique())
    columns = min(len(models), chart.max_columns)
    lines = -(-len(models) // columns)
    figure = Figure(figsize=(max(5.2, width * columns + 0.4), height * len(rows) * lines + 0.9), layout="constrained")
    grid = figure.subplots(len(rows) * lines, columns, squeeze=False, sharey=not isinstance(chart, Heat | Dots))
    for axes in grid.flat:
        axes.set_visible(False)
    panels = []
    for row, value in enumerate(rows):
        for number, model in enumerate(models):
            part = table if value is None else table[table[chart.rows] == value]
            part = part if model is None else part[part[chart.columns] == model]
            if part.empty:
                continue
            axes = grid[row * lines + number // columns, number % columns]
            axes.set_visible(True)
            titles = [None if value is None else label_text(value, labels), None if model is None else plain(model)]
            title = "\n".join(text for text in titles if text)
            panels.append(_Panel(axes, part, title, number % columns == 0))
    return figure, panels


def _finish(panel: _Panel, value: str, *, grid: str) -> None:
    axes = panel.axes
    axes.set_title(panel.title, fontsize=9, loc="left", parse_math=False)
    if panel.is_first:
        axes.set_ylabel(fill(value, 34), fontsize=9)
    axes.tick_params(labelsize=_SMALL)
    axes.grid(axis=grid, alpha=0.25)  # type: ignore[arg-type]
    axes.spines[["top", "right"]].set_visible(False)


def _colors(values: pd.Series[Any], labels: Labels) -> dict[str, str]:
    """A color for each value: that of its label, else a free one."""
    colors = {str(value): labels[str(value)].color if str(value) in labels else None for value in values.unique()}
    free = cycle([color for color in SERIES if color not in colors.values()])
    return {value: color or next(free) for value, color in colors.items()}


def _chances(table: pd.DataFrame) -> list[float]:
    return [] if "chance" not in table else [float(chance) for chance in table["chance"].dropna().unique()]


def _legend(
    figure: Figure,
    table: pd.DataFrame,
    chart: Lines | Dots,
    colors: Mapping[str, str],
    labels: Labels,
    dash: str | None,
) -> None:
    handles = [
        Line2D([], [], color=color, linewidth=2.2, label=plain(label_text(value, labels)))
        for value, color in colors.items()
    ]
    if dash is not None and table[dash].nunique() > 1:
        for value in table[dash].unique():
            label = label_text(value, labels)
            handles.append(Line2D([], [], color=MUTED, linestyle="-" if value == CLEAN else "--", label=label))
    if _chances(table):
        handles.append(Line2D([], [], color=MUTED, linestyle=":", label=chart.chance_label))
    if len(handles) > 1 or chart.color == "tokens":
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=_legend_columns([str(handle.get_label()) for handle in handles], figure.get_figwidth()),
            fontsize=_SMALL,
            frameon=False,
        )


def _legend_columns(labels: Sequence[str], width: float) -> int:
    """The largest number of columns that fits a figure of this width in inches: up to four, or three of many labels."""
    em = _SMALL / 72
    for columns in range(len(labels) if len(labels) < 5 else 3, 1, -1):
        longest = [max(map(len, column)) for column in np.array_split(np.array(labels, dtype=object), columns)]
        # A letter is about half an em wide; line, padding and the gap between columns take five.
        if sum(0.55 * length + 5 for length in longest) * em <= width:
            return columns
    return 1


_DRAW: Mapping[type[Chart], Any] = {Lines: _lines, Ribbons: _ribbons, Dots: _dots, Heat: _heat}
