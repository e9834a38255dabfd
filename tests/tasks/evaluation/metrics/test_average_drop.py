"""Average drop, increase and gain, compared with a loop, torchcam and pytorch-grad-cam."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from torch.nn import functional as F

from classlens.core.stats import Statistics
from classlens.tasks.evaluation.metrics.average_drop import METRIC
from tests import zoo
from tests.tasks.evaluation.batches import GivenImportance, batch_of, lens_of
from tests.tasks.evaluation.literal_pixels import bilinear
from tests.tasks.evaluation.metrics.test_insertion import GivenMaps, probability

NAME = "cls_not_square"
IMAGES = 8


@pytest.fixture
def maps() -> torch.Tensor:
    """The last one has no positive value."""
    drawn = torch.randn(IMAGES, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    drawn[-1] = -drawn[-1].abs()
    return drawn


def shares_of(maps: torch.Tensor) -> torch.Tensor:
    """Maps of pixels with a largest value of 1."""
    pixels = F.interpolate(maps.view(-1, 1, 3, 2), (24, 16), mode="bilinear")[:, 0].clamp_min(0)
    return pixels / pixels.amax(dim=(1, 2), keepdim=True).clamp_min(1e-9)


def test_against_a_loop(maps: torch.Tensor) -> None:
    lens, pixels, target = lens_of(), zoo.pixels(NAME, IMAGES), zoo.targets(IMAGES)
    arrays = METRIC.measure(batch_of(lens, pixels, target), GivenImportance(maps))
    for image in range(IMAGES):
        values = [max(float(value), 0.0) for value in bilinear(maps[image].view(3, 2).tolist(), 24, 16)]
        shares = torch.tensor(values).double().view(24, 16) / (max(values) or 1.0)
        before = probability(lens.view.module, pixels[image], int(target[image]))
        after = probability(lens.view.module, pixels[image] * shares, int(target[image]))
        # Maps are rounded to 2^-20 of their largest value, which probabilities follow.
        assert arrays["drop"][image] == pytest.approx(max(0.0, before - after) / before, abs=1e-4)
        assert arrays["gain"][image] == pytest.approx(max(0.0, after - before) / (1 - before), abs=1e-4)
        assert arrays["increase"][image] == (after > before)
    assert 0 < arrays["increase"].sum() < IMAGES


def test_against_torchcam(maps: torch.Tensor) -> None:
    """Which divides by the probability plus 1e-7."""
    metrics = pytest.importorskip("torchcam.metrics", reason="torchcam comes with the extra compare")
    lens, pixels, target = lens_of(), zoo.pixels(NAME, IMAGES), zoo.targets(IMAGES)
    extractor = GivenMaps(lens.view.module, shares_of(maps))
    theirs = metrics.ClassificationMetric(extractor, lambda logits: logits.softmax(dim=-1))
    theirs.update(pixels, target.tolist())
    arrays = METRIC.measure(batch_of(lens, pixels, target), GivenImportance(maps))
    data = xr.Dataset({name: ("image", values) for name, values in arrays.items()})
    drop, increase, gain = METRIC.scores(data, Statistics(resamples=10))
    assert drop.value == pytest.approx(theirs.summary()["avg_drop"], abs=1e-3)
    assert increase.value == theirs.summary()["conf_increase"]
    assert (drop.better, increase.better, gain.better) == ("lower", "higher", "higher")
    assert [drop.measure, increase.measure, gain.measure] == list(METRIC.measures)


def test_against_pytorch_grad_cam(maps: torch.Tensor) -> None:
    """Whose drop is in units of probability."""
    theirs = pytest.importorskip("pytorch_grad_cam.metrics.cam_mult_image", reason="grad-cam is of the extra compare")
    lens, pixels, target = lens_of(), zoo.pixels(NAME, IMAGES), zoo.targets(IMAGES)
    shares = shares_of(maps).numpy()
    targets = [lambda output, label=int(label): output.softmax(-1)[label] for label in target]
    batch = batch_of(lens, pixels, target)
    arrays = METRIC.measure(batch, GivenImportance(maps))
    drop = theirs.DropInConfidence()(pixels, shares, targets, lens.view.module)
    np.testing.assert_allclose(arrays["drop"] * batch.probability_unchanged, drop, rtol=0, atol=1e-6)
    increase = theirs.IncreaseInConfidence()(pixels, shares, targets, lens.view.module)
    np.testing.assert_array_equal(arrays["increase"], increase)


def test_nothing_to_lose_or_to_gain() -> None:
    """Probabilities that are rounded to 0 and 1."""
    lens, pixels = lens_of(), zoo.pixels(NAME, 2)
    with torch.no_grad():
        lens.view.module.head.bias[0] += 5000
    arrays = METRIC.measure(batch_of(lens, pixels, torch.tensor([0, 1])), GivenImportance(torch.ones(2, 6)))
    assert arrays["drop"].tolist() == [0, 0]
    assert arrays["gain"].tolist() == [0, 0]
    assert arrays["increase"].tolist() == [0, 0]
