"""An evaluation as a folder: scores, curves with their figures, and a summary."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from classlens.analysis.charts import Lines
from classlens.analysis.labels import method_label
from classlens.render.folders.analysis import write_csv
from classlens.render.folders.result_folder import EVALUATION, replacing
from classlens.render.markdown.evaluation import evaluation_summary, evaluation_title
from classlens.tasks.evaluation.evaluate import EvaluateResult
from classlens.tasks.evaluation.metric import CurveAxes
from classlens.tasks.evaluation.registry import METRICS


def write_evaluation(result: EvaluateResult, out: Path, *, version: str) -> None:
    """Write ``scores.csv``, ``curves.csv``, figures, ``summary.md`` and ``evaluation.json``, all at once or nothing.

    ``write_evaluation(classlens.evaluate("builtin:cifar10", data, "out"), Path("out/results"), version="0.1.0")``
    """
    from classlens.render.figures.charts import draw
    from classlens.render.figures.style import save

    with replacing(out, EVALUATION) as folder:
        write_csv(result.scores, folder / "scores.csv")
        write_csv(result.curves, folder / "curves.csv")
        (folder / "summary.md").write_text(evaluation_summary(result), encoding="utf-8")
        names = zip(result.curves["metric"], result.curves["curve"], strict=True)
        table = result.curves.assign(panel=[METRICS[metric].curves[curve] for metric, curve in names])
        labels = {method: method_label(method) for method in table["method"].unique()}
        for chart in _charts():
            figure = draw(chart, table, evaluation_title(result), labels)
            if figure is not None:
                for ending in ("png", "svg"):
                    save(figure, folder / f"{chart.file_stem('curves')}.{ending}")
        record = {
            "classlens": version,
            "store": result.run.store,
            "images": result.run.images,
            "statistics": asdict(result.statistics),
            "missing": result.missing,
        }
        (folder / "evaluation.json").write_text(json.dumps(record, indent=1, allow_nan=False), encoding="utf-8")


def _charts() -> Iterator[Lines]:
    """One figure for all metrics whose curves share their axes; the second and later ones are named by a metric."""
    metrics: dict[CurveAxes, list[str]] = {}
    for name, metric in METRICS.items():
        if metric.curve_axes is not None:
            metrics.setdefault(metric.curve_axes, []).append(name)
    for axes, names in metrics.items():
        yield Lines(
            value=axes.y,
            x="x",
            x_label=axes.x,
            color="method",
            columns="panel",
            suffix=names[0] if axes != next(iter(metrics)) else "",
            where={"metric": tuple(names)},
            unit_range=axes.unit_range,
            max_columns=2,
        )
