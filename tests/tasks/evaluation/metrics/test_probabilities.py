"""Properties of all metrics of the probability: a planted model, batches of any images, stopped runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from classlens import Lens, Progress, evaluate
from classlens.core.stats import Statistics
from classlens.tasks.evaluation.evaluate import STORE
from classlens.tasks.evaluation.metric import MetricAxes
from classlens.tasks.evaluation.registry import METRICS
from tests import zoo
from tests.data.pictures import assert_same
from tests.tasks.evaluation.batches import GivenImportance, batch_of, lens_of, method_of

NAME = "cls_not_square"
FILLED = [f"{kind}{fill}" for kind in ("insertion", "deletion") for fill in ("", "_black", "_blur")]


@pytest.mark.parametrize("name", [*FILLED, "road", "average_drop"])
def test_a_map_of_the_truth_is_better_than_others(name: str) -> None:
    """A planted model reads the contrast of one token; the maps are that token, a random one, and all others."""
    metric, lens, pixels = METRICS[name], lens_of(), zoo.pixels(NAME, 6)
    batch = batch_of(lens, pixels, torch.zeros(6, dtype=torch.int64))
    token = torch.tensor([0, 1, 2, 3, 4, 5])

    def run(pixels: Tensor) -> Tensor:
        patches = pixels.unfold(2, 8, 8).unfold(3, 8, 8).flatten(2, 3)
        contrast = patches[torch.arange(6), :, token].std(dim=(1, 2, 3))
        return torch.stack([20 * (contrast - 0.6), *[torch.zeros(6)] * 10], dim=1)

    batch.run = run  # type: ignore[method-assign]
    batch.__dict__["probability_unchanged"] = batch.probability(run(pixels))
    truth = torch.eye(6, dtype=torch.float64)[token]
    drawn = torch.rand(6, 6, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    axes = MetricAxes((3, 2), 3, False, batch.settings)
    scores: dict[str, list[float]] = {}
    for maps in (truth, drawn, 1 - truth):
        arrays = metric.measure(batch, GivenImportance(maps, text=str(maps)))
        data = xr.Dataset(
            {key: (metric.variables[key].dims, array) for key, array in arrays.items()}, metric.coords(axes)
        )
        for score in metric.scores(data, Statistics(resamples=10)):
            if score.better == "higher" and not score.measure.endswith(("accuracy", "increase", "gain")):
                scores.setdefault(score.measure, []).append(score.value)
            elif score.better == "lower" and not score.measure.endswith("accuracy"):
                scores.setdefault(score.measure, []).append(-score.value)
    assert scores
    for measure, (best, random, worst) in scores.items():
        assert best > random > worst, measure


@pytest.mark.parametrize("name", ["insertion_blur", "deletion", "road", "average_drop"])
def test_values_do_not_depend_on_the_batch(name: str) -> None:
    metric, lens, pixels, target = METRICS[name], lens_of(), zoo.pixels(NAME, 3), zoo.targets(3)
    importance = method_of("logit_attribution")
    together = metric.measure(batch_of(lens, pixels, target), importance)
    for image in range(3):
        part = slice(image, image + 1)
        alone = metric.measure(batch_of(lens, pixels[part], target[part], first=image), importance)
        for key, values in alone.items():
            # Stored in float32; a share of a small probability has more rounding.
            np.testing.assert_allclose(values, together[key][part], rtol=1e-5, atol=1e-7)


def test_a_stopped_run_resumes(lens: Lens, data: str, tmp_path: Path) -> None:
    def run(out: Path, *, stops: bool = False) -> None:
        def report(progress: Progress) -> None:
            if stops and progress.done + progress.under_way > 3:
                raise KeyboardInterrupt

        metrics = ["insertion", "deletion_blur", "road", "average_drop"]
        evaluate(lens, data, out, methods=["chefer"], metrics=metrics, limit=8, batch_size=4, workers=0, report=report)

    run(tmp_path / "complete")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", stops=True)
    run(tmp_path / "run")
    assert_same(tmp_path / "run" / STORE, tmp_path / "complete" / STORE)
