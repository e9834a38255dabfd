"""Correlations of maps with those of the trained model as weights become random."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.stats import spearmanr

import classlens
from classlens.core.stats import Statistics
from classlens.tasks.evaluation.cascade import Cascade
from classlens.tasks.evaluation.metrics.randomization import Randomization
from tests import zoo
from tests.tasks.evaluation.batches import batch_of, lens_of, method_of

NAME = "cls_not_square"


def test_correlation_at_each_stage() -> None:
    lens, twin = lens_of(seed=0), lens_of(seed=7)
    pixels, target = zoo.pixels(NAME, 2), zoo.targets(2)
    importance = method_of("class_gradient:loss=logit")
    cascade = Cascade(lens, twin)
    batch = batch_of(lens, pixels, target, cascade=lambda: cascade)
    correlation = Randomization().measure(batch, importance)["correlation"]
    assert correlation.shape == (2, 5)
    trained = importance.explain(lens.trace(pixels), target)
    all_random = importance.explain(lens_of(seed=7).trace(pixels), target)
    mixed: Any = zoo.build(NAME)
    mixed.load_state_dict(
        {
            key: value if key.startswith(("norm.", "head.")) else zoo.build(NAME).state_dict()[key]
            for key, value in zoo.build(NAME, seed=7).state_dict().items()
        }
    )
    head_random = importance.explain(classlens.load(mixed).trace(pixels), target)
    for image in range(2):
        assert correlation[image, -1] == pytest.approx(spearmanr(trained[image], all_random[image]).statistic, abs=1e-6)
        assert correlation[image, 0] == pytest.approx(spearmanr(trained[image], head_random[image]).statistic, abs=1e-6)


def test_scores_and_curve_of_known_correlations() -> None:
    correlation = np.array([[1.0, 0.5, 0.0], [0.5, 0.5, np.nan]])
    data = xr.Dataset({"correlation": (("image", "randomized"), correlation)}, {"randomized": [1, 2, 3]})
    scores = {score.measure: score for score in Randomization().scores(data, Statistics(resamples=100))}
    assert {name: (score.value, score.images, score.better) for name, score in scores.items()} == {
        "correlation_head_random": (0.75, 2, ""),
        "correlation_all_random": (0.0, 1, ""),
    }
    points = list(Randomization().points(data, Statistics(resamples=100)))
    assert [(point.x, point.value) for point in points] == [(1 / 3, 0.75), (2 / 3, 0.5), (1.0, 0.0)]
    # Two images: a resample holds both or one of them twice, so the interval spans their values.
    assert (points[0].low, points[0].high) == (0.5, 1.0)
