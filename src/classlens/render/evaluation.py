"""EvaluateResult as a folder: the table, the curves and their figure, and a summary for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from classlens.analysis.charts import Lines
from classlens.render.folder import EVALUATION, replacing
from classlens.render.summary import markdown, value_of
from classlens.tasks.evaluation.evaluate import EvaluateResult

_CURVES: Mapping[tuple[str, str], str] = {
    ("removal", "negative"): "tokens removed, least important first",
    ("removal", "positive"): "tokens removed, most important first",
    ("masking", "negative"): "pixels masked, least important first",
    ("masking", "positive"): "pixels masked, most important first",
    ("randomization", "correlation"): "weights made random, head first",
}
"""What each curve goes over."""

_MEASURES: Mapping[tuple[str, str], str] = {
    ("removal", "negative_auc_reference"): "removal, least first, AUC as published",
    ("removal", "negative_auc"): "removal, least first, AUC",
    ("removal", "positive_auc_reference"): "removal, most first, AUC as published",
    ("removal", "positive_auc"): "removal, most first, AUC",
    ("masking", "negative_auc"): "masking, least first, AUC",
    ("masking", "positive_auc"): "masking, most first, AUC",
    ("segmentation", "pixel_accuracy"): "segmentation, pixel accuracy",
    ("segmentation", "mean_iou"): "segmentation, mIoU",
    ("segmentation", "mean_ap"): "segmentation, mAP",
    ("pointing", "share_inside"): "pointing, share inside",
    ("class_sensitivity", "score"): "class sensitivity",
    ("randomization", "correlation_head_random"): "correlation, head random",
    ("randomization", "correlation_all_random"): "correlation, all random",
    ("completeness", "missing_logits"): "attribution, missing logits",
}
_ARROWS = {"higher": "↑", "lower": "↓"}
CHARTS = (
    Lines(
        value="top-1 accuracy",
        x="x",
        x_label="share removed or masked",
        color="method",
        columns="panel",
        suffix="",
        where={"metric": ("removal", "masking")},
        across=2,
    ),
    Lines(
        value="rank correlation with the trained model's map",
        x="x",
        x_label="share of stages made random",
        color="method",
        columns="panel",
        suffix="randomization",
        where={"metric": ("randomization",)},
        whole=False,
    ),
)


def write_evaluation(found: EvaluateResult, out: Path, *, version: str) -> None:
    """Write ``scores.csv``, ``curves.csv``, figures, ``summary.md`` and ``evaluation.json``, all at once or nothing.

    write_evaluation(classlens.evaluate("builtin:cifar10", data, "out"), Path("out/results"), version="1")
    """
    from classlens.render.figures.charts import draw
    from classlens.render.figures.style import save

    with replacing(out, EVALUATION) as folder:
        found.scores.to_csv(folder / "scores.csv", index=False)
        found.curves.to_csv(folder / "curves.csv", index=False)
        (folder / "summary.md").write_text(evaluation_summary(found), encoding="utf-8")
        keys = list(zip(found.curves["metric"], found.curves["curve"], strict=True))
        table = found.curves.assign(panel=[_CURVES.get(key, " ".join(key)) for key in keys])
        for chart in CHARTS:
            figure = draw(chart, table, _title(found))
            if figure is not None:
                name = f"curves_{chart.suffix}" if chart.suffix else "curves"
                for ending in ("png", "svg"):
                    save(figure, folder / f"{name}.{ending}")
        record = {
            "classlens": version,
            "store": found.run.store,
            "images": found.run.images,
            "statistics": asdict(found.statistics),
            "missing": found.missing,
        }
        (folder / "evaluation.json").write_text(json.dumps(record, indent=1, allow_nan=False), encoding="utf-8")


def _title(found: EvaluateResult) -> str:
    models = found.scores["model"].unique()
    return f"How faithful explanations are: {models[0]}" if len(models) else "How faithful explanations are"


def evaluation_summary(found: EvaluateResult) -> str:
    """The whole of ``summary.md``: methods down, measures across, the best of each in bold.

    print(evaluation_summary(classlens.evaluate("builtin:cifar10", data, "out")))
    """
    how = found.statistics
    images = int(found.scores["images"].max()) if len(found.scores) else 0
    parts = [
        f"# {_title(found)}\n",
        f"Up to {images:,} images; in brackets {100 * how.confidence:g} % bootstrap intervals over images "
        f"({how.resamples:,} resamples, seed {how.seed}). Arrows tell which direction is better; the best value of a "
        "column is bold, and so are those whose interval holds it.\n",
    ]
    for metric, rows in found.scores.groupby("metric", sort=False):
        parts.append(f"## {str(metric).replace('_', ' ').capitalize()}\n")
        parts += _table(str(metric), rows)
    parts += [f"- Not measured: {name}: {why}.\n" for name, why in found.missing.items()]
    return "\n".join(parts)


def _table(metric: str, rows: pd.DataFrame) -> Iterator[str]:
    measures = list(dict.fromkeys(rows["measure"]))
    best = {measure: _best(rows[rows["measure"] == measure]) for measure in measures}
    header = ["method"]
    for measure in measures:
        arrow = _ARROWS.get(rows.loc[rows["measure"] == measure, "better"].iloc[0], "")
        header.append(f"{_MEASURES.get((metric, measure), measure)} {arrow}".strip())
    lines = []
    for method, own in rows.groupby("method", sort=False):
        cells = {row["measure"]: row for _, row in own.iterrows()}
        line = [str(method)]
        for measure in measures:
            row = cells.get(measure)
            if metric == "completeness" and row is not None:
                line.append(f"{row['value']:.1e} ({row['low']:.1e} to {row['high']:.1e})")
                continue
            text = value_of(row)
            bold = row is not None and row["low"] <= best[measure] <= row["high"]
            line.append(f"**{text}**" if bold else text)
        lines.append(line)
    yield markdown(header, lines)


def _best(rows: pd.DataFrame) -> float:
    """NaN where neither direction speaks for a method."""
    values = rows["value"].astype(float)
    return {"lower": float(values.min()), "higher": float(values.max())}.get(rows["better"].iloc[0], float("nan"))
