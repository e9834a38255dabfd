"""The summary of an analysis: the stores, each experiment's numbers, and what is missing and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain

import pandas as pd

from classlens.analysis.analyze import AnalyzeResult, Missing
from classlens.analysis.charts import Chart, Dots, Heat, Lines
from classlens.analysis.experiment import Experiment
from classlens.analysis.labels import label_text
from classlens.analysis.registry import EXPERIMENTS
from classlens.core.stats import Statistics
from classlens.render.markdown.tables import interval_text, markdown_table, p_text
from classlens.text import markdown_text

Name = Callable[[object], str]
"""From a value of a table to its label."""

_PAIRS = 3
"""Pairs of stores that are shown; more are in the tables alone."""
_FLIPS = 20
"""Images with another prediction that are listed."""
_CLASSES = 5
"""Classes at each end of a table of classes."""


def summary(analysis: AnalyzeResult) -> str:
    """The whole of ``summary.md``.

    ``print(summary(classlens.analyze("b32.zarr")))``

    Values stand with their intervals, p values after Holm's correction over blocks; blocks are numbered from 0, as in
    the tables.
    """
    parts = ["# Analysis\n", *_stores(analysis), _statistics(analysis.statistics)]
    for experiment in EXPERIMENTS.values():
        missing = [entry for entry in analysis.missing if entry.experiment == experiment.name]
        table = analysis.tables.get(experiment.name)
        if table is None and not missing:
            continue
        parts.append(f"## {experiment.label}\n\n{experiment.definition}\n")
        if table is not None:
            parts.append(f"Table: `tables/{experiment.name}`\n")
            parts += chain.from_iterable(_chart(chart, table, experiment) for chart in experiment.charts)
        parts += _missing(missing)
    parts += [*_images(analysis), *_pairs(analysis)]
    return "\n".join(parts)


def _images(analysis: AnalyzeResult) -> Iterator[str]:
    if not analysis.images.empty:
        yield (
            "## Images\n\nOne row for each image: label, prediction and its confidence, `commitment`, the first block "
            "from which on half of the tokens or more have the prediction on top, and the rank of the class of "
            "interest after each block, a mean over `tokens`.\n\nTable: `tables/images`\n"
        )


def _pairs(analysis: AnalyzeResult) -> Iterator[str]:
    """Every two stores of the same images: differences, and the first images whose prediction flipped."""
    if analysis.pairs.empty:
        return
    yield (
        "## Pairs of stores\n\nThe same images under both: means, and the mean difference of an image (second minus "
        "first). `flipped` is the share of images with another prediction. Identifiability takes images whose class of "
        "interest is the same in both.\n\nTables: `tables/pairs`, `tables/flips`\n"
    )
    pairs = list(analysis.pairs.groupby(["first", "second"], sort=False))
    for (first, second), rows in pairs if len(pairs) <= _PAIRS else []:
        cells = [
            [
                row["measure"],
                "" if pd.isna(row["block"]) else int(row["block"]),
                *("" if pd.isna(row[name]) else f"{row[name]:.3f}" for name in ("value_first", "value_second")),
                interval_text(row, "difference"),
                p_text(row["p_holm"]),
                row["images"],
            ]
            for _, row in rows.iterrows()
        ]
        yield markdown_table(["measure", "block", first, second, "difference", "p", "images"], cells)
        flips = analysis.flips
        flips = flips[(flips["first"] == first) & (flips["second"] == second)]
        if len(flips):
            of_all = f" ({_FLIPS} of {len(flips):,})" if len(flips) > _FLIPS else ""
            yield f"Images with another prediction{of_all}:\n"
            shown = flips.head(_FLIPS)[["image", "label", "prediction_first", "prediction_second"]]
            yield markdown_table(["image", "label", first, second], shown.to_numpy().tolist())


def _stores(analysis: AnalyzeResult) -> Iterator[str]:
    rows = []
    for store in analysis.stores:
        of_all = store["images_of_all"]
        images = f"{store['images']:,}" + ("" if store["images"] == of_all else f" of {of_all:,}")
        data = " ".join(str(part) for part in (store["data"], store["split"]) if part)
        rows.append(
            [store["model"], data, images, store["blocks"], store["num_classes"], ", ".join(store["conditions"])]
        )
    yield markdown_table(["model", "data", "images", "blocks", "classes", "conditions"], rows)
    for store in analysis.stores:
        if store["data_note"]:
            yield f"- {markdown_text(store['model'])}: {markdown_text(store['data_note'])}\n"
        if store["images"] != store["images_of_all"]:
            lacking = store["images_of_all"] - store["images"]
            yield (
                f"- {markdown_text(store['model'])}: {lacking:,} images are not measured (skipped, or the run goes "
                "on), and are left out of everything.\n"
            )


def _statistics(statistics: Statistics) -> str:
    smallest = 1 / (1 + statistics.permutations)
    return (
        f"Values are means over images; in brackets {100 * statistics.confidence:g} % bootstrap intervals over images "
        f"({statistics.resamples:,} resamples). Permutation tests draw {statistics.permutations:,} permutations, so "
        f"their p values are at least {smallest:.2g}. p values are corrected over blocks after Holm. Blocks are "
        f"numbered from 0. Seed {statistics.seed}.\n"
    )


def _chart(chart: Chart, table: pd.DataFrame, experiment: Experiment) -> Iterator[str]:
    for column, values in chart.where.items():
        table = table[table[column].isin([*values, "difference"])]
    if table.empty:
        return
    name = partial(label_text, labels=experiment.labels)
    if isinstance(chart, Heat):
        yield from _classes(chart, table, name)
    elif isinstance(chart, Dots):
        yield _rows(chart, table, experiment.keys, name)
    elif isinstance(chart, Lines):
        yield from _lines(chart, table, name)


def _lines(chart: Lines, table: pd.DataFrame, name: Name) -> Iterator[str]:
    """A table for each model and row of panels: blocks down, a column for each series and one for its test."""
    if chart.x != "block":
        yield from _depths(chart, table, name)
        return
    if chart.color == "model" and table["model"].nunique() < 2:
        return
    panels = [column for column in (chart.columns, chart.rows) if column is not None]
    series = [column for column in (chart.dash, chart.color) if column is not None and column not in panels]
    for values, panel in table.groupby(panels, sort=False):
        header, columns = ["block"], []
        blocks = sorted(map(int, panel[chart.x].unique()))
        for keys, rows in panel.groupby(series, sort=False):
            by_block = {int(row[chart.x]): row for _, row in rows.iterrows()}
            header.append(", ".join(map(name, keys)))
            columns.append([interval_text(by_block.get(block)) for block in blocks])
            if "p_holm" in rows and rows["p_holm"].notna().any():
                header.append("p")
                columns.append([p_text(by_block[block]["p_holm"]) if block in by_block else "" for block in blocks])
        yield f"**{markdown_text(', '.join(map(name, values)))}**: {chart.value}\n"
        yield markdown_table(header, [list(row) for row in zip(blocks, *columns, strict=True)])


def _depths(chart: Lines, table: pd.DataFrame, name: Name) -> Iterator[str]:
    """A row for each model and row of panels: the value half-way, and the last one."""
    rows = []
    for (model, tokens), line in table.groupby(["model", chart.rows or chart.color], sort=False):
        line = line.sort_values(chart.x)
        half = line.iloc[(line[chart.x] - 0.5).abs().argmin()]
        rows.append([name(model), name(tokens), f"{half['value']:.3f}", f"{line['value'].iloc[-1]:.3f}"])
    yield markdown_table(["model", "tokens", "about half-way", "at the end"], rows)


def _rows(chart: Dots, table: pd.DataFrame, keys: Sequence[str], name: Name) -> str:
    """A row for each value, with its change or its test where there are any."""
    shown = ["model", *(key for key in keys if len(chart.where.get(key, ("", ""))) > 1)]
    header, rows = [*shown, "value"], []
    changes = "change" in table and table["change"].notna().any()
    tests = "p" in table and table["p"].notna().any()
    header += [*(["change"] if changes else []), *(["p"] if tests else [])]
    for _, row in table.iterrows():
        cells = [*map(name, row[shown]), interval_text(row)]
        if changes:
            cells.append(interval_text(row, "change", "change_low", "change_high"))
        if tests:
            cells.append(p_text(row["p"]))
        rows.append(cells)
    return markdown_table([column.replace("_", " ") for column in header], rows)


def _classes(chart: Heat, table: pd.DataFrame, name: Name) -> Iterator[str]:
    """The highest and lowest classes of the last block."""
    last = table.groupby("model")[chart.x].transform("max")
    panels = [column for column in (chart.columns, chart.rows) if column is not None]
    for values, panel in table[table[chart.x] == last].groupby(panels, sort=False):
        shown = panel.sort_values("value", ascending=False, kind="stable")
        if len(shown) > 2 * _CLASSES:
            shown = pd.concat([shown.head(_CLASSES), shown.tail(_CLASSES)])
        yield f"**{markdown_text(', '.join(map(name, values)))}**, last block: highest and lowest classes\n"
        yield markdown_table(
            ["class", chart.value], [[row[chart.y], interval_text(row)] for _, row in shown.iterrows()]
        )


def _missing(missing: Sequence[Missing]) -> Iterator[str]:
    for entry in missing:
        sentence = f"Not measured for {entry.model}{'' if entry.whole else ', in part'}: {entry.reason}."
        yield f"- {markdown_text(sentence)}\n"
