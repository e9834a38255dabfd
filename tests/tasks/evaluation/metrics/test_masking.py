"""Pixel masking, compared with loops over pixels."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.ndimage
import torch
import xarray as xr
from torch import Tensor
from torchvision import transforms

from classlens.core.pixel_maps import upsample
from classlens.core.stats import Statistics
from classlens.lens.lens import Lens
from classlens.models.transforms import Preprocessing
from classlens.tasks.evaluation.metrics.masking import Masking
from classlens.tasks.evaluation.registry import METRICS
from tests import zoo
from tests.tasks.evaluation.batches import batch_of, lens_of, method_of

NAME = "cls_not_square"


def bilinear(grid: list[list[float]], height: int, width: int) -> list[Fraction]:
    """Interpolation between the centers of tokens, constant beyond the outer ones, pixel by pixel, without rounding."""
    rows, columns = len(grid), len(grid[0])
    exact = [[Fraction(value) for value in row] for row in grid]
    half = Fraction(1, 2)
    pixels = []
    for y in range(height):
        for x in range(width):
            v = min(max((y + half) * rows / height - half, Fraction(0)), Fraction(rows - 1))
            u = min(max((x + half) * columns / width - half, Fraction(0)), Fraction(columns - 1))
            i, j = min(int(v), rows - 2), min(int(u), columns - 2)
            a, b = v - i, u - j
            top = (1 - b) * exact[i][j] + b * exact[i][j + 1]
            bottom = (1 - b) * exact[i + 1][j] + b * exact[i + 1][j + 1]
            pixels.append((1 - a) * top + a * bottom)
    return pixels


def rounded(values: list[Fraction], largest: float) -> list[Fraction]:
    """Multiples of 2^-20 of the next power of two above the largest value."""
    unit = Fraction(2) ** (math.frexp(largest)[1] - 20)
    return [round(value / unit) * unit for value in values]


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
        exact = rounded(bilinear(maps[image].view(3, 2).tolist(), 24, 16), float(maps[image].abs().max()))
        ranked = [pixel for _, pixel in sorted((-value, pixel) for pixel, value in enumerate(exact))]
        for direction, order in enumerate((ranked[::-1], ranked)):
            for tenth in range(10):
                masked = pixels[image].clone()
                for channel in range(3):
                    mean = 0.0 if normalized else float(pixels[image, channel].mean())
                    for pixel in order[: 24 * 16 * tenth // 10]:
                        masked[channel, pixel // 16, pixel % 16] = mean
                assert correct[image, direction, tenth] == is_correct(lens, masked, int(target[image]))
    assert set(correct.flatten().tolist()) == {0, 1}


@pytest.mark.parametrize("normalized", [True, False])
def test_black_is_black_in_the_picture(normalized: bool) -> None:
    """The picture of a painted image is black, and its pixels are those of a black picture."""
    lens, pixels = lens_of(), zoo.pixels(NAME, 2)
    if normalized:
        mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
        normalize = transforms.Normalize(mean, std)
        lens.preprocessing = Preprocessing(normalize, mean, std)
        expected = normalize(torch.zeros(3, 24, 16, dtype=pixels.dtype))
    else:
        lens.preprocessing = Preprocessing(None)
        expected = torch.zeros(3, 24, 16, dtype=pixels.dtype)
    painted = METRICS["masking_black"].paint(batch_of(lens, pixels, zoo.targets(2)))  # type: ignore[attr-defined]
    torch.testing.assert_close(painted, expected.expand(2, -1, -1, -1), rtol=0, atol=1e-12)


def test_blur_is_a_gaussian_filter() -> None:
    """By scipy, away from the border, which is padded in another way."""
    pixels = zoo.pixels(NAME, 2)
    painted = METRICS["masking_blur"].paint(batch_of(lens_of(), pixels, zoo.targets(2)))  # type: ignore[attr-defined]
    # 24 × 16 pixels: a deviation of 24 / 32, cut off at two pixels.
    expected = scipy.ndimage.gaussian_filter(pixels.numpy(), 0.75, axes=(2, 3), radius=2, mode="mirror")
    np.testing.assert_allclose(painted.numpy(), expected, rtol=0, atol=1e-12)


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
    expected = metric.paint(batch).flatten(2).clone()  # type: ignore[attr-defined]
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
