"""ROAD, compared with a dense linear system and with pytorch-grad-cam."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from timm.models.vision_transformer import VisionTransformer

import classlens
from classlens.core.stats import Statistics
from classlens.tasks.evaluation.image_batch import EvaluationSettings
from classlens.tasks.evaluation.imputation import imputed
from classlens.tasks.evaluation.metrics import road
from classlens.tasks.evaluation.metrics.road import METRIC, noisily_imputed
from tests import zoo
from tests.tasks.evaluation.batches import GivenImportance, batch_of, lens_of, method_of

NAME = "cls_not_square"
REASON = "grad-cam comes with the extra compare"


def mask(share: float, height: int = 7, width: int = 9) -> np.ndarray:
    return np.random.default_rng(5).random((height, width)) < share


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_imputation_against_a_dense_system(share: float) -> None:
    pixels, removed = np.random.default_rng(6).normal(size=(2, 7, 9)), mask(share)
    unknown = [tuple(index) for index in np.argwhere(removed)]
    system, right = np.zeros((len(unknown), len(unknown))), np.zeros((len(unknown), 2))
    for row, (y, x) in enumerate(unknown):
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                inside = 0 <= y + dy < 7 and 0 <= x + dx < 9
                if (dy, dx) == (0, 0) or not inside:
                    continue
                weight = 1 / 12 if dy and dx else 1 / 6
                system[row, row] += weight
                if removed[y + dy, x + dx]:
                    system[row, unknown.index((y + dy, x + dx))] -= weight
                else:
                    right[row] += weight * pixels[:, y + dy, x + dx]
    expected = pixels.copy()
    expected[:, removed] = np.linalg.solve(system, right).T
    np.testing.assert_allclose(imputed(pixels, removed), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_imputation_is_that_of_pytorch_grad_cam(share: float) -> None:
    theirs = pytest.importorskip("pytorch_grad_cam.metrics.road", reason=REASON)
    pixels, removed = np.random.default_rng(6).normal(size=(3, 7, 9)), mask(share)
    pixels = pixels.astype(np.float32)
    expected = theirs.NoisyLinearImputer(noise=0.0)(torch.from_numpy(pixels), torch.from_numpy(1.0 - removed))
    np.testing.assert_allclose(imputed(pixels, removed), expected, rtol=0, atol=1e-6)  # in float32


@pytest.mark.parametrize("removed", [mask(0.0), np.arange(63).reshape(7, 9) > 0])
def test_imputation_of_nothing_and_of_almost_everything(removed: np.ndarray) -> None:
    pixels = np.full((3, 7, 9), 0.25)
    pixels[:, removed] = 7
    result = imputed(pixels, removed)
    np.testing.assert_allclose(result, 0.25, rtol=0, atol=1e-12)
    assert (pixels[:, removed] == 7).all(), "what was given stays"


def test_scores_are_those_of_pytorch_grad_cam(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise, on a model whose tokens are pixels, so that its thresholds are our shares."""
    theirs = pytest.importorskip("pytorch_grad_cam.metrics.road", reason=REASON)
    monkeypatch.setattr(theirs.NoisyLinearImputer.__init__, "__defaults__", (0.0, theirs.neighbors_weights))
    monkeypatch.setattr(road, "_NOISE", 0.0)
    model = VisionTransformer(
        img_size=20, patch_size=1, embed_dim=24, depth=2, num_heads=3, mlp_ratio=2, num_classes=zoo.CLASSES
    )
    zoo.randomize(model)
    lens = classlens.load(model.eval())
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randn(3, 3, 20, 20, generator=generator)
    maps = torch.stack([torch.randperm(400, generator=generator) for _ in range(3)]).double()
    target = lens.trace(pixels).recording.logits.argmax(dim=1)
    arrays = METRIC.measure(batch_of(lens, pixels, target), GivenImportance(maps))
    coords = {"order": ["negative", "positive"], "removed": [0, 0.1, 0.3, 0.5, 0.7, 0.9]}
    data = xr.Dataset({name: (("image", "order", "removed"), values) for name, values in arrays.items()}, coords)
    scores = {score.measure: score for score in METRIC.scores(data, Statistics(resamples=10))}
    targets = [lambda output, label=int(label): output.softmax(-1)[label] for label in target]
    args = pixels, maps.view(3, 20, 20).numpy(), targets, model
    shares = [10, 30, 50, 70, 90]
    combined = theirs.ROADCombined(shares)(*args)
    assert scores["combined"].value == pytest.approx(combined.mean(), abs=1e-5)
    for column, percentile in enumerate(reversed(shares), start=1):
        for order, kind in enumerate((theirs.ROADLeastRelevantFirst, theirs.ROADMostRelevantFirst)):
            expected = kind(percentile)(*args, return_diff=False)
            np.testing.assert_allclose(arrays["probability"][:, order, column], expected, rtol=0, atol=1e-5)
    for number, direction in enumerate(("negative", "positive")):
        of_direction = arrays["correct"][:, number, 1:]
        assert scores[f"{direction}_accuracy"].value == pytest.approx(of_direction.mean())
        assert scores[f"{direction}_probability"].value == pytest.approx(
            arrays["probability"][:, number, 1:].mean(), abs=1e-6
        )
    points = list(METRIC.points(data, Statistics(resamples=10)))
    assert [point.value for point in points if point.x == 0] == pytest.approx(
        [arrays["probability"][:, 0, 0].mean()] * 2
    )


def test_noise_is_of_the_image_and_the_seed() -> None:
    """On removed pixels alone, with a deviation of 0.01, whatever the batch."""
    lens, pixels, target = lens_of(), zoo.pixels(NAME, 2), zoo.targets(2)
    order = torch.arange(24 * 16).expand(2, -1)[:, :300]
    noisy = noisily_imputed(batch_of(lens, pixels, target, first=4), order)
    alone = noisily_imputed(batch_of(lens, pixels[1:], target[1:], first=5), order[1:])
    assert torch.equal(noisy[1:], alone)
    other = noisily_imputed(
        batch_of(lens, pixels[1:], target[1:], first=5, settings=EvaluationSettings(seed=1)), order[1:]
    )
    assert not torch.equal(other, alone)
    removed = np.zeros((24, 16), dtype=bool)
    removed.flat[:300] = True
    assert torch.equal(noisy[:, :, ~removed], pixels[:, :, ~removed])
    noise = np.stack([noisy[image].numpy() - imputed(pixels[image].numpy(), removed) for image in range(2)])[
        :, :, removed
    ]
    assert noise.std() == pytest.approx(0.01, rel=0.1)  # of 1800 values
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.2


def test_both_orders_agree_with_the_unchanged_image() -> None:
    lens, pixels, target = lens_of(), zoo.pixels(NAME, 2), zoo.targets(2)
    arrays = METRIC.measure(batch_of(lens, pixels, target), method_of("chefer"))
    with torch.no_grad():
        expected = lens.view.run(pixels).softmax(dim=1).gather(1, target[:, None]).expand(-1, 2)
    np.testing.assert_allclose(arrays["probability"][:, :, 0], expected, rtol=0, atol=1e-6)
