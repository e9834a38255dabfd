"""A reliability test as a folder: scores, the risk-coverage figure, the most doubtful images and their report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classlens.analysis.charts import Lines
from classlens.analysis.doubt import DOUBT_METHODS
from classlens.analysis.labels import Label
from classlens.analysis.reliability import ReliabilityResult
from classlens.render.folders.analysis import write_csv
from classlens.render.folders.result_folder import RELIABILITY, replacing
from classlens.render.markdown.reliability import reliability_summary, reliability_title

if TYPE_CHECKING:
    from PIL.Image import Image

CHART = Lines(
    value="risk: share of wrong predictions",
    x="coverage",
    x_label="coverage: share of images kept, the least doubtful first",
    color="method",
    unit_range=False,
)


def write_reliability(
    result: ReliabilityResult,
    out: Path,
    *,
    record: dict[str, Any] | None = None,
    pictures: Sequence[Image] = (),
    version: str,
) -> None:
    """Write ``scores.csv``, ``curves.csv``, ``images.csv``, the figure, ``summary.md`` and ``reliability.json``.

    ``write_reliability(classlens.reliability("a.zarr", "b.zarr"), Path("out"), version=classlens.__version__)``

    ``record`` and ``pictures`` are an inspection of the most doubtful images, in their order, written as
    ``report.html``. All files appear at once or none does; an earlier result is replaced.
    """
    from classlens.render.figures.charts import draw
    from classlens.render.figures.style import save
    from classlens.render.html.report import write_report

    with replacing(out, RELIABILITY) as folder:
        for name in ("scores", "curves", "images"):
            write_csv(getattr(result, name), folder / f"{name}.csv")
        table = result.curves.rename(columns={"risk": "value"}).assign(model=result.test["model"])
        labels = {name: Label(method.label) for name, method in DOUBT_METHODS.items()}
        figure = draw(CHART, table, reliability_title(result), labels)
        assert figure is not None, "there is a curve for every method"
        for ending in ("png", "svg"):
            save(figure, folder / f"risk_coverage.{ending}")
        if record is not None:
            write_report(record, pictures, folder / "report.html")
        summary = reliability_summary(result, linked=len(pictures))
        (folder / "summary.md").write_text(summary, encoding="utf-8")
        facts = {
            "classlens": version,
            "train": result.train,
            "test": result.test,
            "statistics": asdict(result.statistics),
        }
        (folder / "reliability.json").write_text(json.dumps(facts, indent=1, allow_nan=False), encoding="utf-8")
