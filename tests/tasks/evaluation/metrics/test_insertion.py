"""Insertion and deletion, compared with loops over pixels and with torchcam."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import classlens
from classlens.core.stats import Statistics
from classlens.models.transforms import Preprocessing
from classlens.tasks.evaluation.fills import FILLS
from classlens.tasks.evaluation.registry import METRICS
from tests import zoo
from tests.tasks.evaluation.batches import GivenImportance, batch_of, lens_of, method_of
from tests.tasks.evaluation.literal_pixels import ranked

NAME = "cls_not_square"


def probability(module: Any, pixels: Tensor, label: int) -> float:
    with torch.no_grad():
        odds = module(pixels[None])[0].exp()
    return float(odds[label] / odds.sum())


@pytest.mark.parametrize("name", ["insertion", "deletion"])
@pytest.mark.parametrize("normalized", [True, False])
def test_against_pixels_one_by_one(name: str, normalized: bool) -> None:
    lens, pixels, target = lens_of(), zoo.pixels(NAME, 2), zoo.targets(2)
    normalization: Any = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)) if normalized else ()
    lens.preprocessing = Preprocessing(None, *normalization)
    importance = method_of("class_gradient")
    measured = METRICS[name].measure(batch_of(lens, pixels, target), importance)["probability"]
    maps = importance.explain(lens.trace(pixels), target)
    for image in range(2):
        order = ranked(maps[image].view(3, 2).tolist(), 24, 16)
        for step in range(21):
            changed = pixels[image].clone()
            count = 24 * 16 * step // 20
            for pixel in order[count:] if name == "insertion" else order[:count]:
                for channel in range(3):
                    mean = 0.0 if normalized else float(pixels[image, channel].mean())
                    changed[channel, pixel // 16, pixel % 16] = mean
            expected = probability(lens.view.module, changed, int(target[image]))
            assert measured[image, step] == pytest.approx(expected, abs=1e-6)  # stored in float32


def test_all_pixels_of_the_image_give_its_probability_and_none_that_of_the_fill() -> None:
    lens, pixels, target = lens_of(), zoo.pixels(NAME, 2), zoo.targets(2)
    lens.preprocessing = Preprocessing(None, (0.5, 0.4, 0.3), (0.2, 0.25, 0.5))
    batch = batch_of(lens, pixels, target)
    for fill in FILLS:
        painted = FILLS[fill](batch)
        for kind, image_end in (("insertion", -1), ("deletion", 0)):
            metric = METRICS[kind if fill == "mean" else f"{kind}_{fill}"]
            curve = metric.measure(batch, method_of("chefer"))["probability"]
            for shown, end in ((pixels, image_end), (painted, -1 - image_end)):
                expected = [probability(lens.view.module, *pair) for pair in zip(shown, target.tolist(), strict=True)]
                np.testing.assert_allclose(curve[:, end], expected, rtol=0, atol=1e-6)


class GivenMaps:
    """An extractor as torchcam takes it, with given maps."""

    def __init__(self, model: Any, maps: Tensor) -> None:
        self.model, self.maps = model, maps

    def __call__(self, class_idx: Any, scores: Any) -> list[Tensor]:
        return [self.maps]

    def fuse_cams(self, cams: list[Tensor]) -> Tensor:
        return cams[0]

    def _hooks_off(self) -> Any:
        return nullcontext()


def test_areas_are_those_of_torchcam() -> None:
    """On a model whose tokens are pixels, of which twenty steps take equally many."""
    metrics = pytest.importorskip("torchcam.metrics", reason="torchcam comes with the extra compare")
    model = VisionTransformer(
        img_size=20, patch_size=1, embed_dim=24, depth=2, num_heads=3, mlp_ratio=2, num_classes=zoo.CLASSES
    )
    zoo.randomize(model)
    lens = classlens.load(model.double().eval())
    lens.preprocessing = Preprocessing(None, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randn(3, 3, 20, 20, generator=generator, dtype=torch.float64)
    maps = torch.stack([torch.randperm(400, generator=generator) for _ in range(3)]).double()
    target = zoo.targets(3)
    theirs = metrics.DeletionInsertionMetric(
        GivenMaps(model, maps.view(3, 20, 20)), lambda logits: logits.softmax(dim=-1), steps=20
    )
    theirs.update(pixels, target.tolist())
    batch = batch_of(lens, pixels, target)
    for name in ("insertion", "deletion"):
        metric = METRICS[name]
        arrays = metric.measure(batch, GivenImportance(maps))
        data = xr.Dataset(
            {"probability": (("image", "changed"), arrays["probability"])}, {"changed": np.arange(21) / 20}
        )
        (score,) = metric.scores(data, Statistics(resamples=10))
        assert score.value == pytest.approx(theirs.summary()[f"{name}_auc"], abs=1e-6)  # of float32 fractions
        assert score.better == ("higher" if name == "insertion" else "lower")
        points = list(metric.points(data, Statistics(resamples=10)))
        assert [point.x for point in points] == [step / 20 for step in range(21)]
        np.testing.assert_allclose([point.value for point in points], arrays["probability"].mean(axis=0), rtol=1e-6)
