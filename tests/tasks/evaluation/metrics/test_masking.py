"""Pixel masking, compared with loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from classlens.core.pixel_maps import upsample
from classlens.core.stats import Statistics
from classlens.lens.lens import Lens
from classlens.models.transforms import Preprocessing
from classlens.tasks.evaluation.fills import FILLS
from classlens.tasks.evaluation.metrics.masking import Masking
from classlens.tasks.evaluation.registry import METRICS
from tests import zoo
from tests.tasks.evaluation.batches import batch_of, lens_of, method_of
from tests.tasks.evaluation.literal_pixels import bilinear, ranked, rounded

NAME = "cls_not_square"


def test_maps_are_interpolated_bilinearly() -> None:
    grid = torch.randn(1, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pixels = upsample(grid, (3, 2), (24, 16))[0].flatten()
    expected = torch.tensor([float(value) for value in bilinear(grid.view(3, 2).tolist(), 24, 16)]).double()
    # Half of 2^-18, the unit for a largest value between 2 and 4.
    torch.testing.assert_close(pixels, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("size", "scale"),
    [((24, 16), 1.0), ((42, 42), 1.0), ((56, 84), 1.0), ((50, 31), 1.0), ((50, 31), 1e-12), ((50, 31), 1e12)],
)
def test_pixels_of_equal_value_are_equal(size: tuple[int, int], scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    for dtype in (torch.float32, torch.float64):
        grid = torch.randn(1, 3, 4, generator=generator, dtype=dtype) * scale
        exact = rounded(bilinear(grid[0].tolist(), *size), float(grid.abs().max()))
        assert upsample(grid.flatten(1), (3, 4), size).flatten().tolist() == [float(value) for value in exact]
    flat = upsample(torch.full((1, 12), 0.1 * scale), (3, 4), size)
    assert not (flat > flat.mean()).any()
    assert not upsample(torch.zeros(1, 12), (3, 4), size).any()


@pytest.mark.parametrize("normalized", [True, False])
def test_against_masking_pixels_one_by_one(normalized: bool) -> None:
    lens, pixels, target = lens_of(), zoo.pixels(NAME, 2), zoo.targets(2)
    target[0] = lens.view.run(pixels[:1]).argmax()
    if normalized:
        lens.preprocessing = Preprocessing(lens.preprocessing.transform, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    else:
        lens.preprocessing = Preprocessing(None)
    importance = method_of("class_gradient")
    correct = Masking().measure(batch_of(lens, pixels, target), importance)["correct"]
    assert correct.shape == (2, 2, 10)
    maps = importance.explain(lens.trace(pixels), target)
    for image in range(2):
        order_of_pixels = ranked(maps[image].view(3, 2).tolist(), 24, 16)
        for direction, order in enumerate((order_of_pixels[::-1], order_of_pixels)):
            for tenth in range(10):
                masked = pixels[image].clone()
                for channel in range(3):
                    mean = 0.0 if normalized else float(pixels[image, channel].mean())
                    for pixel in order[: 24 * 16 * tenth // 10]:
                        masked[channel, pixel // 16, pixel % 16] = mean
                assert correct[image, direction, tenth] == is_correct(lens, masked, int(target[image]))
    assert set(correct.flatten().tolist()) == {0, 1}


@pytest.mark.parametrize("name", ["masking_black", "masking_blur"])
def test_all_pixels_masked_but_a_tenth(name: str) -> None:
    """The most important tenth of one image stays; all others are painted."""
    metric, lens, pixels = METRICS[name], lens_of(), zoo.pixels(NAME, 1)
    batch, importance = batch_of(lens, pixels, zoo.targets(1)), method_of("class_gradient")
    shown: list[Tensor] = []
    run = batch.run

    def record(pixels: Tensor) -> Tensor:
        shown.append(pixels)
        return run(pixels)

    batch.run = record  # type: ignore[method-assign]
    metric.measure(batch, importance)
    values = upsample(batch.maps(importance), batch.grid, batch.size).flatten(1)[0]
    kept = values.argsort(descending=True, stable=True)[: 24 * 16 - 24 * 16 * 9 // 10]
    expected = FILLS[metric.fill](batch).flatten(2).clone()  # type: ignore[attr-defined]
    expected[..., kept] = pixels.flatten(2)[..., kept]
    assert torch.equal(shown[8].flatten(2), expected)


def is_correct(lens: Lens, pixels: torch.Tensor, label: int) -> bool:
    with torch.no_grad():
        return int(lens.view.module(pixels[None]).argmax()) == label


def test_areas_do_not_count_the_unmasked_image() -> None:
    """Accuracy 1 at 0 %, 0.5 at 10 %, and 0 from 20 % on; 1 at 90 % in one direction."""
    correct = np.zeros((2, 2, 10), dtype=np.int8)
    correct[:, :, 0] = 1
    correct[0, :, 1] = 1
    correct[:, 0, 9] = 1
    masked = [tenth / 10 for tenth in range(10)]
    data = xr.Dataset(
        {"correct": (("image", "order", "masked"), correct)}, {"order": ["negative", "positive"], "masked": masked}
    )
    scores = {score.measure: score for score in Masking().scores(data, Statistics(resamples=20))}
    # Trapezoids between 10 % and 90 %, over a span of 0.8.
    assert scores["positive_auc"].value == pytest.approx(0.5 * 0.1 * 0.5 / 0.8)
    assert scores["negative_auc"].value == pytest.approx((0.5 * 0.1 * 0.5 + 1 * 0.1 * 0.5) / 0.8)
    assert (scores["negative_auc"].better, scores["positive_auc"].better) == ("higher", "lower")
    points = [point for point in Masking().points(data, Statistics(resamples=20)) if point.curve == "positive"]
    assert [point.x for point in points] == masked
    assert [point.value for point in points] == [1, 0.5, *[0] * 8]
