"""The registry of metrics: records that keep their word, and a metric added by one file and one row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from typer.testing import CliRunner

from classlens import Lens, Statistics, evaluate
from classlens.cli import app
from classlens.tasks.evaluation.cascade import Cascade
from classlens.tasks.evaluation.image_batch import EvaluationSettings
from classlens.tasks.evaluation.metric import MetricAxes
from classlens.tasks.evaluation.mosaics import mosaic
from classlens.tasks.evaluation.registry import METRICS
from classlens.tasks.evaluation.schema import group_schema
from tests import zoo
from tests.refusals import refused
from tests.tasks.evaluation.batches import batch_of, lens_of, method_of
from tests.tasks.evaluation.runs import SETTINGS

NAME = "cls_not_square"
FILE = """
import numpy as np

from classlens.store.schema import Variable
from classlens.tasks.evaluation.curves import mean
from classlens.tasks.evaluation.metric import Metric


class Concentration(Metric):
    label = "Concentration"
    about = "largest share of a token in the absolute importance"
    variables = {"share": Variable(("image",), np.dtype("float32"), np.nan, about)}
    measures = {"largest_share": "concentration, largest share"}

    def measure(self, batch, importance):
        maps = batch.maps(importance).abs()
        return {"share": (maps.amax(dim=1) / maps.sum(dim=1)).float().numpy()}

    def scores(self, data, statistics):
        yield mean("largest_share", data["share"].values, statistics, better="")


METRIC = Concentration()
"""


@pytest.mark.parametrize("name", METRICS)
def test_arrays_follow_the_schema_and_tables_the_labels(name: str) -> None:
    metric = METRICS[name]
    lens, importance, settings = lens_of(), method_of("logit_attribution"), EvaluationSettings(steps=3)
    pixels = zoo.pixels(NAME, 4)
    batch = batch_of(
        lens,
        mosaic(pixels, double=False) if metric.images == "mosaic" else pixels,
        torch.arange(4),
        settings=settings,
        shows_class=np.repeat(np.array([[0, 1]], dtype=np.int8), [4], axis=0).repeat(24 * 8, axis=1),
        cascade=lambda: Cascade(lens, lens_of(seed=7)),
    )
    assert metric.applies_to(importance)
    arrays = metric.measure(batch, importance)
    schema = group_schema(metric, MetricAxes((3, 2), 3, False, settings), np.arange(4).astype(str))
    assert arrays.keys() == metric.variables.keys()
    for key, variable in metric.variables.items():
        assert arrays[key].shape == (4, *(schema.sizes[dim] for dim in variable.dims[1:]))
        assert arrays[key].dtype == variable.dtype
    data = xr.Dataset({key: (metric.variables[key].dims, values) for key, values in arrays.items()}, schema.coords)
    scores = list(metric.scores(data, Statistics(resamples=10)))
    assert [score.measure for score in scores] == list(metric.measures)
    assert {score.images for score in scores} == {4}
    points = list(metric.points(data, Statistics(resamples=10)))
    assert {point.curve for point in points} == set(metric.curves)
    assert all(0 <= point.x <= 1 for point in points)
    assert bool(metric.curves) == (metric.curve_axes is not None)


@pytest.mark.parametrize("method", ["logit_attribution", "random"])
@pytest.mark.parametrize("name", METRICS)
def test_forward_passes_of_a_metric(name: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimate for the batch size is that which passes the first block, in tokens; a backward pass counts twice."""
    metric, importance, settings = METRICS[name], method_of(method), EvaluationSettings(permutations=5)
    if not metric.applies_to(importance):
        return
    lens, pixels = lens_of(), zoo.pixels(NAME, 4)
    batch = batch_of(
        lens,
        mosaic(pixels, double=False) if metric.images == "mosaic" else pixels,
        torch.arange(4),
        settings=settings,
        shows_class=np.ones((4, 24 * 16), dtype=np.int8),
        cascade=lambda: Cascade(lens, lens_of(seed=7)),
    )
    if metric.images == "single":
        assert [batch.maps(importance), batch.correct_unchanged, batch.subsets], "what all metrics share"
    passed: list[int] = []
    block: Any = type(lens.view.module.blocks[0])
    forward = block.forward

    def counted(self: Any, x: torch.Tensor) -> Any:
        passed.append(x.shape[:2].numel())
        return forward(self, x)

    monkeypatch.setattr(block, "forward", counted)
    metric.measure(batch, importance)
    passes = sum(passed) / len(lens.view.blocks) / (len(pixels) * lens.view.tokens((24, 16)).count)
    estimate = metric.passes(MetricAxes((3, 2), len(lens.view.blocks), importance.drawn, settings))
    assert estimate / 3 <= max(1, passes) <= estimate + 1


@pytest.fixture
def concentration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "concentration_metric.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    METRICS.register("concentration", "concentration_metric:METRIC")
    yield "concentration"
    METRICS.unregister("concentration")


def test_a_new_metric_is_named_by_help_and_errors(concentration: str, lens: Lens, data: str, tmp_path: Path) -> None:
    help_text = CliRunner().invoke(app, ["evaluate", "--help"], env={"COLUMNS": "1000"}).stdout
    assert ", ".join(METRICS) in help_text
    message = refused(lambda: evaluate(lens, data, tmp_path / "run", metrics=["concentrations"]), "'concentrations'")
    assert f"did you mean {concentration!r}" in message
    assert message.endswith(", ".join(METRICS))


def test_a_new_metric_is_one_of_all(concentration: str, lens: Lens, data: str, tmp_path: Path) -> None:
    options = {**SETTINGS, "methods": ["rollout", "class_gradient"], "limit": 4}
    result = evaluate(lens, data, tmp_path / "run", **{**options, "metrics": "all"})
    scores = result.scores[result.scores.metric == concentration]
    assert scores["method"].tolist() == ["class_gradient", "rollout"]
    assert scores["measure"].tolist() == ["largest_share"] * 2
    assert scores["value"].between(1 / 6, 1).all()
    assert scores["images"].tolist() == [4, 4]
    assert list(result.scores["metric"].unique())[-1] == concentration


def test_names_without_the_row() -> None:
    assert "concentration" not in METRICS
