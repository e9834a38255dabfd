"""The summary of an evaluation: a table for each metric, with the best methods in bold."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from classlens.render.markdown.tables import Bold, interval_text, markdown_table
from classlens.tasks.evaluation.evaluate import EvaluateResult
from classlens.tasks.evaluation.registry import METRICS
from classlens.text import markdown_text

_ARROWS: Mapping[str, str] = {"higher": " ↑", "lower": " ↓"}


def evaluation_title(result: EvaluateResult) -> str:
    """Title of the summary and the figures, with the model where anything was measured."""
    models = result.scores["model"].unique()
    return f"How faithful explanations are: {models[0]}" if len(models) else "How faithful explanations are"


def evaluation_summary(result: EvaluateResult) -> str:
    """The whole of ``summary.md``: methods down, measures across, the best of each in bold.

    ``print(evaluation_summary(classlens.evaluate("builtin:cifar10", data, "out")))``
    """
    statistics = result.statistics
    images = int(result.scores["images"].max()) if len(result.scores) else 0
    parts = [
        f"# {markdown_text(evaluation_title(result))}\n",
        f"Up to {images:,} images; in brackets {100 * statistics.confidence:g} % bootstrap intervals over images "
        f"({statistics.resamples:,} resamples, seed {statistics.seed}). Arrows show which direction is better. The "
        "best value of a column is bold, and so are those that the images do not tell apart from it: the interval of "
        "the difference, resampled over the same images, contains 0.\n",
    ]
    if result.run.unlabeled:
        parts.append(f"- {result.run.unlabeled:,} images have no label: the explained class is the predicted one.\n")
    for metric, rows in result.scores.groupby("metric", sort=False):
        parts.append(f"## {str(metric).replace('_', ' ').capitalize()}\n")
        parts.append(_table(str(metric), rows))
    parts += [
        f"- Not measured: {markdown_text(name)}: {markdown_text(reason)}.\n" for name, reason in result.missing.items()
    ]
    return "\n".join(parts)


def _table(name: str, scores: pd.DataFrame) -> str:
    header, rows = evaluation_cells(name, scores)
    lines = [[method, *(Bold(text) if best else text for text, best in cells)] for method, cells in rows]
    return markdown_table(["method", *header], lines)


def evaluation_cells(name: str, scores: pd.DataFrame) -> tuple[list[str], list[tuple[str, list[tuple[str, bool]]]]]:
    """Names of the measures of a metric, and by method the text of each and whether it is the best or like it."""
    metric = METRICS[name]
    columns = dict(list(scores.groupby("measure", sort=False)))
    header = [metric.measures[measure] + _ARROWS.get(rows["better"].iloc[0], "") for measure, rows in columns.items()]
    lines = []
    for method, rows in scores.groupby("method", sort=False):
        by_measure = {row["measure"]: row for _, row in rows.iterrows()}
        cells = []
        for measure in columns:
            row = by_measure.get(measure)
            if metric.rounding_error and row is not None:
                cells.append((f"{row['value']:.1e} ({row['low']:.1e} to {row['high']:.1e})", False))
            else:
                best = row is not None and bool(row["difference_low"] <= 0 <= row["difference_high"])
                cells.append((interval_text(row), best))
        lines.append((str(method), cells))
    return header, lines
