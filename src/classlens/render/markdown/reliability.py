"""The summary of a reliability test: scores of doubt side by side, and the most doubtful images."""

from __future__ import annotations

import pandas as pd

from classlens.analysis.doubt import DOUBT_METHODS
from classlens.analysis.reliability import ReliabilityResult
from classlens.render.markdown.tables import Bold, interval_text, markdown_table
from classlens.text import markdown_text

SHOWN = 20
"""Number of images in the summary; ``images.csv`` has all."""
RELIABILITY_MEASURES = {
    "auroc": "AUROC ↑",
    "aupr": "AUPR of errors ↑",
    "aurc": "AURC ↓",
    "excess_aurc": "excess AURC ↓",
    "fpr": "FPR at 95 % TPR ↓",
}
_DEFINITIONS = (
    "AUROC: probability that a wrong prediction is doubted more than a right one. AUPR of errors: average precision of "
    "finding the wrong ones. AURC: area under the risk-coverage curve, the mean error rate of the least doubted images "
    "over all numbers of them; excess AURC: the same beyond an order that doubts exactly the wrong ones. FPR at 95 % "
    "TPR: share of right predictions that are doubted where 95 % of the wrong ones are."
)


def reliability_title(result: ReliabilityResult) -> str:
    return f"Which predictions to doubt: {result.test['model']}"


def reliability_summary(result: ReliabilityResult, *, linked: int = 0) -> str:
    """The whole of ``summary.md``; the first ``linked`` images are linked to their place in ``report.html``.

    ``print(reliability_summary(classlens.reliability("a.zarr", "b.zarr")))``
    """
    statistics, train, test = result.statistics, result.train, result.test
    return "\n".join(
        [
            f"# {markdown_text(reliability_title(result))}\n",
            f"{_counted(test)} of {markdown_text(test['data'])}; regressions fitted on {_counted(train)} of "
            f"{markdown_text(train['data'])}. In brackets {100 * statistics.confidence:g} % bootstrap intervals over "
            f"images ({statistics.resamples:,} resamples, seed {statistics.seed}), with the regressions held fixed. "
            "The best value of a column is bold, and so are those that the images do not tell apart from it: the "
            "interval of the difference, resampled over the same images, contains 0.\n",
            _scores(result.scores),
            *(f"- {method.label}: {method.about}." for method in DOUBT_METHODS.values()),
            f"\n{_DEFINITIONS}\n",
            "## Most doubtful predictions\n",
            "Doubt is the probability of being wrong by the regression on the trajectory.\n",
            _images(result.images.head(max(SHOWN, linked)), linked),
        ]
    )


def _counted(facts: dict[str, object]) -> str:
    return f"{facts['images']:,} images with {facts['wrong']:,} wrong predictions"


def _scores(scores: pd.DataFrame) -> str:
    lines = [
        [label, *(Bold(text) if best else text for text, best in cells)] for label, cells in reliability_cells(scores)
    ]
    return markdown_table(["score of doubt", *RELIABILITY_MEASURES.values()], lines)


def reliability_cells(scores: pd.DataFrame) -> list[tuple[str, list[tuple[str, bool]]]]:
    """By score of doubt, the text of each measure and whether it is the best or like it."""
    lines = []
    for method, rows in scores.groupby("method", sort=False):
        by_measure = {row["measure"]: row for _, row in rows.iterrows()}
        chosen = [by_measure[measure] for measure in RELIABILITY_MEASURES]
        cells = [(interval_text(row), bool(row["difference_low"] <= 0 <= row["difference_high"])) for row in chosen]
        lines.append((DOUBT_METHODS[str(method)].label, cells))
    return lines


def _images(images: pd.DataFrame, linked: int) -> str:
    lines: list[str] = []
    for place, row in images.reset_index(drop=True).iterrows():
        name = markdown_text(str(row["image"]))
        shown = f"[{name}](report.html#image-{place})" if len(lines) < linked else name
        said = {0: "wrong", 1: "right"}.get(row["correct"], "")
        lines.append(
            f"| {shown} | {row['trajectory']:.3f} | {markdown_text(row['prediction'])} ({row['confidence']:.3f}) | "
            f"{markdown_text(row['label'])} | {said} |"
        )
    header = "| image | doubt | prediction (confidence) | label | |\n| --- | --- | --- | --- | --- |\n"
    return header + "\n".join(lines) + "\n"
