"""An analysis in Markdown: what was measured, each experiment's numbers, and what is missing and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from classlens.analysis.analyze import Analysis, Missing
from classlens.analysis.charts import LABELS, Chart, Dots, Heat, Lines
from classlens.analysis.experiment import Experiment
from classlens.analysis.registry import EXPERIMENTS
from classlens.core.stats import Statistics

_CLASSES = 5
"""Classes at each end of a table of classes."""


def summary(analysis: Analysis) -> str:
    """The whole of ``summary.md``.

        print(summary(classlens.analyze("b32.zarr")))

    Values stand with their intervals, p values after Holm's correction over blocks; blocks are numbered from 0, as in
    the tables.
    """
    parts = ["# Analysis\n", *_stores(analysis), _statistics(analysis.statistics)]
    for experiment in EXPERIMENTS.values():
        missing = [one for one in analysis.missing if one.experiment == experiment.name]
        table = analysis.tables.get(experiment.name)
        if table is None and not missing:
            continue
        parts.append(f"## {experiment.title}\n\n{experiment.about}\n")
        if table is not None:
            parts.append(f"Table: `tables/{experiment.name}`\n")
            for chart in experiment.charts:
                parts += _chart(chart, table, experiment)
        parts += _missing(missing)
    return "\n".join(parts)


def _stores(analysis: Analysis) -> Iterator[str]:
    rows = []
    for store in analysis.stores:
        of_all = store["images_of_all"]
        images = f"{store['images']:,}" + ("" if store["images"] == of_all else f" of {of_all:,}")
        data = " ".join(str(part) for part in (store["data"], store["split"]) if part)
        rows.append(
            [store["model"], data, images, store["blocks"], store["num_classes"], ", ".join(store["conditions"])]
        )
    yield markdown(["model", "data", "images", "blocks", "classes", "conditions"], rows)
    for store in analysis.stores:
        if store["data_note"]:
            yield f"- {_cell(store['model'])}: {store['data_note']}\n"
        if store["images"] != store["images_of_all"]:
            lacking = store["images_of_all"] - store["images"]
            yield (
                f"- {_cell(store['model'])}: {lacking:,} images are not measured (skipped, or the run goes on), "
                "and are left out of everything.\n"
            )


def _statistics(how: Statistics) -> str:
    least = 1 / (1 + how.permutations)
    return (
        f"Values are means over images; in brackets {100 * how.confidence:g} % bootstrap intervals over images "
        f"({how.resamples:,} resamples). Permutation tests draw {how.permutations:,} permutations, so no p value of "
        f"theirs is below {least:.2g}. p values are corrected over blocks after Holm. Blocks are numbered from 0. "
        f"Seed {how.seed}.\n"
    )


def _chart(chart: Chart, table: pd.DataFrame, experiment: Experiment) -> Iterator[str]:
    for column, values in chart.where.items():
        table = table[table[column].isin([*values, "difference"])]
    if table.empty:
        return
    if isinstance(chart, Heat):
        yield from _classes(chart, table)
    elif isinstance(chart, Dots):
        yield _rows(table, experiment, chart)
    elif isinstance(chart, Lines):
        yield from _lines(chart, table)


def _lines(chart: Lines, table: pd.DataFrame) -> Iterator[str]:
    """A table for each model and row of panels: blocks down, a column for each series and one for its test."""
    if chart.x != "block" or (chart.color == "model" and table["model"].nunique() < 2):
        if chart.x != "block":
            yield from _last(chart, table)
        return
    panels = [one for one in (chart.columns, chart.rows) if one is not None]
    series = [one for one in (chart.dash, chart.color) if one is not None and one not in panels]
    for names, panel in table.groupby(panels, sort=False):
        header, columns = ["block"], []
        blocks = sorted(panel[chart.x].unique())
        for keys, rows in panel.groupby(series, sort=False):
            by_block = {int(row[chart.x]): row for _, row in rows.iterrows()}
            header.append(", ".join(_label(key) for key in keys))
            columns.append([value_of(by_block.get(block)) for block in blocks])
            if "p_holm" in rows and rows["p_holm"].notna().any():
                header.append("p")
                columns.append([p_value(by_block[block]["p_holm"]) if block in by_block else "" for block in blocks])
        yield f"**{', '.join(_label(name) for name in names)}**: {chart.value}\n"
        yield markdown(header, [[block, *(column[row] for column in columns)] for row, block in enumerate(blocks)])


def _last(chart: Lines, table: pd.DataFrame) -> Iterator[str]:
    rows = []
    for (model, tokens), line in table.groupby(["model", chart.rows or chart.color], sort=False):
        line = line.sort_values(chart.x)
        half = line.iloc[(line[chart.x] - 0.5).abs().argmin()]
        rows.append([_label(model), _label(tokens), f"{half['value']:.3f}", f"{line['value'].iloc[-1]:.3f}"])
    yield markdown(["model", "tokens", "about half-way", "at the end"], rows)


def _rows(table: pd.DataFrame, experiment: Experiment, chart: Chart) -> str:
    keys = ["model", *(key for key in experiment.keys if len(chart.where.get(key, ("", ""))) > 1)]
    header, rows = [*keys, "value"], []
    changes = "change" in table and table["change"].notna().any()
    if changes:
        header += ["change", "p"]
    for _, row in table.iterrows():
        cells = [_label(row[key]) for key in keys] + [value_of(row)]
        if changes:
            known = pd.notna(row["change"])
            cells += [_between(row, "change", "change_low", "change_high") if known else "", p_value(row["p"])]
        rows.append(cells)
    return markdown([header_name.replace("_", " ") for header_name in header], rows)


def _classes(chart: Heat, table: pd.DataFrame) -> Iterator[str]:
    last = table.groupby("model")[chart.x].transform("max")
    panels = [one for one in (chart.columns, chart.rows) if one is not None]
    for names, panel in table[table[chart.x] == last].groupby(panels, sort=False):
        ordered = panel.sort_values("value", ascending=False, kind="stable")
        some = ordered if len(ordered) <= 2 * _CLASSES else pd.concat([ordered.head(_CLASSES), ordered.tail(_CLASSES)])
        yield f"**{', '.join(_label(name) for name in names)}**, last block: highest and lowest classes\n"
        yield markdown(["class", chart.value], [[row[chart.y], value_of(row)] for _, row in some.iterrows()])


def _missing(missing: Sequence[Missing]) -> Iterator[str]:
    for one in missing:
        yield f"- Not measured for {_cell(one.model)}{'' if one.whole else ', in part'}: {one.reason}.\n"


def value_of(row: Any) -> str:
    """A value with its interval, such as ``0.382 (0.378 to 0.386)``."""
    return "" if row is None or pd.isna(row["value"]) else _between(row, "value", "low", "high")


def _between(row: Any, value: str, low: str, high: str) -> str:
    if pd.isna(row[low]):
        return f"{row[value]:.3f}"
    return f"{row[value]:.3f} ({row[low]:.3f} to {row[high]:.3f})".replace("-", "−")


def p_value(p: float) -> str:
    """Never 0: what is too small for a float is given as a bound."""
    if pd.isna(p):
        return ""
    return "< 1e-300" if p < 1e-300 else f"{p:.2g}"


def _label(value: Any) -> str:
    return LABELS.get(value, str(value))


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def markdown(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table; what stands in its cells stays on one line."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)
