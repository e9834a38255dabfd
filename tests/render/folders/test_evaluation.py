"""An evaluation as a folder: its curves by metric and method."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from classlens import palette
from classlens.core.stats import Statistics
from classlens.engine.progress import MeasureResult
from classlens.render.folders.evaluation import write_evaluation
from classlens.tasks.evaluation.evaluate import EvaluateResult
from classlens.tasks.evaluation.registry import METRICS
from classlens.tasks.tokens.conditions.registry import CONDITIONS

METHODS = (
    "class_gradient",
    "random",
    "rollout",
    "stored_rank:condition=probe",
    "stored_rank:condition=probe:site=attn_out",
)


def result() -> EvaluateResult:
    rows = [
        ("m", method, metric, curve, x, 0.9 - x / 2 - number / 100, 0.0, 1.0)
        for number, method in enumerate(METHODS)
        for metric, record in METRICS.items()
        for curve in record.curves
        for x in (0.0, 0.5, 1.0)
    ]
    curves = pd.DataFrame(rows, columns=["model", "method", "metric", "curve", "x", "value", "low", "high"])
    row = ("m", "rollout", "pointing", "share_inside", 0.5, 0.4, 0.6, 9, "higher", 0.0, 0.0, 0.0)
    columns = ["model", "method", "metric", "measure", "value", "low", "high", "images", "better"]
    columns += ["difference", "difference_low", "difference_high"]
    outcome = MeasureResult("out/evaluation.zarr", 9, 0, {}, 1.0, 16)
    return EvaluateResult(pd.DataFrame([row], columns=columns), curves, {"removal": "why"}, outcome, Statistics())


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Figure]:
    """Figures by file, while they are written."""
    figures: dict[str, Figure] = {}
    with pytest.MonkeyPatch.context() as monkeypatch:

        def save(figure: Figure, path: Path) -> None:
            figures[path.name] = figure
            path.write_text("")

        monkeypatch.setattr("classlens.render.figures.style.save", save)
        out = tmp_path_factory.mktemp("evaluation") / "results"
        write_evaluation(result(), out, version="1")
    files = {"curves.csv", "scores.csv", "summary.md", "evaluation.json", *figures}
    assert {path.name for path in out.iterdir()} == files
    record = json.loads((out / "evaluation.json").read_text())
    assert (record["classlens"], record["images"], record["missing"]) == ("1", 9, {"removal": "why"})
    return figures


def panels(figure: Figure) -> dict[str, Any]:
    return {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_visible()}


def test_metrics_with_the_same_axes_share_a_figure(drawn: dict[str, Figure]) -> None:
    names = ("curves", "curves_randomization")
    files = {f"{name}.{ending}" for name in (*names, "curves_insertion") for ending in ("png", "svg")}
    assert set(drawn) == files
    removal, randomization = (panels(drawn[f"{name}.png"]) for name in names)
    changes = ("tokens removed", "pixels masked", "black pixels", "blurred pixels")
    assert list(removal) == [f"{change}, {order} important first" for change in changes for order in ("least", "most")]
    assert list(randomization) == ["weights made random, head first"]
    for axes in removal.values():
        assert axes.get_xlabel() == "share removed or masked"
        assert axes.get_ylim() == pytest.approx((-0.03, 1.03))
    (axes,) = randomization.values()
    assert axes.get_xlabel() == "share of stages made random"
    assert axes.get_ylabel().replace("\n", " ") == "rank correlation with the trained model's map"


def test_methods_have_their_labels_and_colors(drawn: dict[str, Figure]) -> None:
    figure = drawn["curves.png"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "class gradient",
        "random",
        "rollout",
        "rank by linear probes",
        "rank by linear probes, site attn out",
    ]
    colors = [to_hex(line.get_color()) for line in next(iter(panels(figure).values())).get_lines()]
    assert len(set(colors)) == len(METHODS)
    assert colors[:2] == [palette.BLACK, palette.GRAY]
    assert colors[3] == CONDITIONS["probe"].color


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_has_labels(name: str) -> None:
    metric = METRICS[name]
    assert metric.measures
    assert bool(metric.curves) == (metric.curve_axes is not None)
