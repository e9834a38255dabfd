"""Results of runs over a data set in a notebook, each as small tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from classlens.analysis.reliability import ReliabilityResult
from classlens.engine.progress import MeasureResult
from classlens.render.markdown.evaluation import evaluation_cells, evaluation_title
from classlens.render.markdown.reliability import RELIABILITY_MEASURES, reliability_cells, reliability_title
from classlens.render.markdown.tables import interval_text
from classlens.render.notebook.elements import Markup, code, element, note, result, table
from classlens.tasks.ablation.result import AblateResult
from classlens.tasks.evaluation.evaluate import EvaluateResult

_ROWS = 10


def measurement_html(run: MeasureResult) -> Markup:
    """The summary of a run, with the reasons of some skipped images."""
    facts = [["images", f"{run.images:,}"], ["of these measured earlier", f"{run.before:,}"]]
    facts += [["skipped", f"{len(run.skipped):,}"]] if run.skipped else []
    facts += [["without a label", f"{run.unlabeled:,}"]] if run.unlabeled else []
    facts += [["without a mask", f"{run.unmasked:,}"]] if run.unmasked else []
    facts += [["seconds", f"{run.seconds:,.1f}"], ["batch size", f"{run.batch_size:,}"]]
    skipped = [note(f"Skipped {name}: {reason}") for name, reason in [*run.skipped.items()][:_ROWS]]
    more = [note(f"… and {len(run.skipped) - _ROWS:,} more")] if len(run.skipped) > _ROWS else []
    remark = [note(run.note)] if run.note else []
    return result(f"Measured: {run.store}", table("", ("", ""), facts), *remark, *skipped, *more)


def evaluation_html(evaluation: EvaluateResult) -> Markup:
    """A table for each metric, methods down and measures across; the best are bold."""
    parts = []
    for metric, scores in evaluation.scores.groupby("metric", sort=False):
        header, rows = evaluation_cells(str(metric), scores)
        lines = [[method, *_marked(cells)] for method, cells in rows]
        parts.append(table(str(metric).replace("_", " "), ["method", *header], lines))
    missing = [note(f"Not measured: {name}: {reason}.") for name, reason in evaluation.missing.items()]
    return result(
        evaluation_title(evaluation),
        *parts,
        *missing,
        _intervals(evaluation.statistics.confidence),
        _hint("scores", "curves"),
    )


def reliability_html(reliability: ReliabilityResult) -> Markup:
    """Scores of doubt side by side, and the most doubtful images."""
    test = reliability.test
    lines = [[label, *_marked(cells)] for label, cells in reliability_cells(reliability.scores)]
    shown = reliability.images.head(_ROWS)
    images = [
        [row["image"], f"{row['trajectory']:.3f}", row["prediction"], row["label"], _said(row["correct"])]
        for _, row in shown.iterrows()
    ]
    return result(
        reliability_title(reliability),
        note(f"{test['images']:,} images of {test['data']} with {test['wrong']:,} wrong predictions."),
        table("scores of doubt", ["score of doubt", *RELIABILITY_MEASURES.values()], lines),
        _intervals(reliability.statistics.confidence),
        table(
            f"Most doubtful predictions, {len(shown)} of {len(reliability.images):,}",
            ("image", "doubt", "prediction", "label", ""),
            images,
        ),
        _hint("scores", "curves", "images"),
    )


def ablation_html(ablation: AblateResult) -> Markup:
    """Agreement of each score with ablation, and what the testing half loses without the chosen heads."""
    agreement = [
        [row["score"], row["measure"], interval_text(row), f"{row['number']:,}"]
        for _, row in ablation.agreement.iterrows()
    ]
    held_out = [[row["measure"], row["class"], row["score"], *_drops(row)] for row in _first(ablation.held_out)]
    return result(
        "Heads of a data set by ablation",
        table("Rank correlation with ablation", ("score", "over", "value", "number"), agreement),
        table(
            f"Testing half without the chosen heads, {len(held_out)} of {len(ablation.held_out):,} rows",
            ("measure", "class", "chosen by", "drop", "beyond chance"),
            held_out,
        ),
        _intervals(ablation.statistics.confidence),
        _hint("effects", "agreement", "held_out", "pairs", "pair_tests"),
    )


def _first(rows: pd.DataFrame) -> list[pd.Series]:
    return [row for _, row in rows.head(_ROWS).iterrows()]


def _drops(row: pd.Series) -> tuple[str, str]:
    return interval_text(row, "drop"), interval_text(row, "beyond_chance", "beyond_low", "beyond_high")


def _marked(cells: Sequence[tuple[str, bool]]) -> Iterator[object]:
    """Cells of values, the best in bold."""
    for text, best in cells:
        yield element("b", text, style="font-weight:700;color:inherit;") if best else text


def _said(correct: float) -> str:
    return {0: "wrong", 1: "right"}.get(int(correct) if correct == correct else -1, "")


def _intervals(confidence: float) -> Markup:
    return note(f"In brackets {100 * confidence:g} % intervals.")


def _hint(*names: str) -> Markup:
    parts: list[object] = ["Tables: "]
    for number, name in enumerate(names):
        parts += [", " if number else "", code(f".{name}")]
    return note(*parts, ".")
