"""Correlations of the maps of two classes, compared with scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import spearmanr

from classlens.core.stats import Statistics
from classlens.tasks.evaluation.image_batch import EvaluationSettings
from classlens.tasks.evaluation.metrics.class_sensitivity import ClassSensitivity
from tests import zoo
from tests.tasks.evaluation.batches import batch_of, lens_of, method_of

NAME = "cls_not_square"
SETTINGS = EvaluationSettings(seed=2)


def test_the_correlation_is_that_with_another_class() -> None:
    lens, pixels, target = lens_of(), zoo.pixels(NAME, 3), zoo.targets(3)
    importance = method_of("class_gradient:loss=logit")
    batch = batch_of(lens, pixels, target, settings=SETTINGS)
    correlation = ClassSensitivity().measure(batch, importance)["correlation"]
    maps = [importance.explain(lens.trace(pixels), torch.full((3,), category)) for category in range(zoo.CLASSES)]
    for image in range(3):
        label = int(target[image])
        others = [
            spearmanr(maps[label][image], maps[category][image]).statistic
            for category in range(zoo.CLASSES)
            if category != label
        ]
        assert min(abs(correlation[image] - other) for other in others) < 1e-6
    # The other class of an image does not depend on the batch.
    last = batch_of(lens, pixels[2:], target[2:], settings=SETTINGS, first=2)
    assert ClassSensitivity().measure(last, importance)["correlation"][0] == pytest.approx(correlation[2], abs=1e-6)


def test_a_method_that_ignores_the_class() -> None:
    batch = batch_of(lens_of(), zoo.pixels(NAME, 3), zoo.targets(3))
    correlation = ClassSensitivity().measure(batch, method_of("rollout"))["correlation"]
    assert correlation == pytest.approx(np.ones(3))
    assert ClassSensitivity().applies_to(method_of("rollout"))
    assert not ClassSensitivity().applies_to(method_of("random"))


def test_images_without_a_correlation_do_not_count() -> None:
    (score,) = ClassSensitivity().scores(xr.Dataset({"correlation": ("image", [1.0, 0.5, np.nan])}), Statistics())
    assert (score.value, score.images) == (0.25, 2)
