"""Maps handed to Quantus and captum, whose own metrics run on them."""

from __future__ import annotations

import copy
import warnings
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import classlens
from classlens.core.pixel_maps import upsample
from classlens.lens import explainer as module
from classlens.models.builtin import MODELS
from tests import zoo
from tests.refusals import refused

NAME = "cls_not_square"
SIZE, GRID = zoo.VARIANTS[NAME].size, zoo.VARIANTS[NAME].grid


def pixels_of(images: int = 2) -> Tensor:
    return torch.randn(images, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model() -> Any:
    return MODELS["builtin:cifar10"].trained().eval()


@pytest.fixture
def quantus() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("quantus", reason="quantus comes with the extra compare")


def test_maps_are_those_of_the_trace() -> None:
    lens, pixels, target = classlens.load(zoo.build(NAME)), zoo.pixels(NAME), zoo.targets()
    importance = lens.trace(pixels).map(target, method="class_gradient", loss="logit").values
    expected = upsample(torch.from_numpy(importance).flatten(1), GRID, SIZE)
    given = classlens.Explainer(lens, "class_gradient", loss="logit").attribute(pixels, target)
    assert (given.shape, given.dtype) == (pixels.shape, pixels.dtype)
    torch.testing.assert_close(given, expected[:, None].expand(pixels.shape), rtol=0, atol=1e-6)
    maps = classlens.explain_func(lens, pixels.numpy(), target.numpy(), method="class_gradient", loss="logit")
    assert maps.shape == (len(pixels), 1, *SIZE)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps[:, 0], expected, rtol=0, atol=1e-6 * float(expected.abs().max()))

    def first_channel(model: object, pixels: Tensor, target: Tensor) -> Tensor:
        return pixels[:, 0]

    given = classlens.Explainer(lens, first_channel, sign="absolute").attribute(pixels)
    torch.testing.assert_close(given[:, 2], pixels[:, 0].abs(), rtol=0, atol=1e-7)


def test_modules_are_loaded_once(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*args: Any, **options: Any) -> Any:
        calls.append(args)
        return classlens.load(*args, **options)

    monkeypatch.setattr(module, "load", counted)
    monkeypatch.setattr(module, "_loaded", [])
    trained, pixels = copy.deepcopy(model), pixels_of().numpy()

    def maps(module: nn.Module, **options: Any) -> Any:
        return classlens.explain_func(module, pixels, np.array([3, 5]), **options)

    before = maps(trained)
    np.testing.assert_array_equal(maps(trained), before)
    maps(trained, method="class_gradient", loss="logit")
    assert len(calls) == 1
    twin = copy.deepcopy(trained)
    with torch.no_grad():
        twin.head.weight.normal_()
    assert not np.allclose(maps(twin), before)
    np.testing.assert_array_equal(maps(trained), before)
    assert len(calls) == 2
    with torch.no_grad():
        trained.head.weight.neg_()  # in place: the same lens, whose laws are measured again
    assert not np.allclose(maps(trained), before)
    assert len(calls) == 2
    trained.head.weight = nn.Parameter(trained.head.weight.detach().clone())
    maps(trained)
    maps(trained, device="cpu")
    assert len(calls) == 4


@pytest.mark.filterwarnings("ignore")
def test_metrics_of_quantus(quantus: Any) -> None:
    model, inputs, targets = zoo.build("cls", torch.float32), zoo.pixels("cls", 2).float().numpy(), np.array([3, 5])
    batch: dict[str, Any] = {"model": model, "x_batch": inputs, "y_batch": targets, "device": "cpu"}
    batch |= {"explain_func": classlens.explain_func, "explain_func_kwargs": {"method": "class_gradient"}}
    flipping = quantus.PixelFlipping(
        features_in_step=128,
        perturb_baseline="black",
        normalise=False,
        disable_warnings=True,
    )
    curves = flipping(**batch)
    # By hand: after three of six steps, half of the pixels have the smallest value of the image, in all channels.
    maps = classlens.explain_func(model, inputs, targets, method="class_gradient")[:, 0].reshape(2, -1)
    for image, target in enumerate(targets):
        order = np.argsort(-maps[image], kind="stable")
        assert maps[image, order[127]] > maps[image, order[128]]
        changed = inputs[image].reshape(3, -1).copy()
        changed[:, order[:128]] = inputs[image].min()
        probability = model(torch.from_numpy(changed).view(1, 3, 16, 16)).softmax(dim=-1)[0, target]
        assert len(curves[image]) == 6
        assert abs(curves[image][2] - float(probability)) < 1e-5

    s_batch = np.zeros((2, 1, 16, 16), dtype=bool)
    s_batch[:, :, 4:12, 4:12] = True
    localization = quantus.RelevanceMassAccuracy(abs=True, normalise=False, disable_warnings=True)
    masses = localization(**batch, s_batch=s_batch)
    expected = [np.abs(row[s_batch[0].ravel()]).sum() / np.abs(row).sum() for row in maps]
    np.testing.assert_allclose(masses, expected, rtol=1e-5)

    randomization = quantus.MPRT(
        layer_order="bottom_up",
        similarity_func=quantus.similarity_func.correlation_spearman,
        return_last_correlation=True,
        disable_warnings=True,
    )
    correlations = randomization(**batch)
    assert len(correlations) == len(targets)
    assert (np.abs(correlations) < 0.9).all()  # every layer is random


@pytest.mark.filterwarnings("ignore")
def test_metrics_of_captum(model: Any) -> None:
    metrics = pytest.importorskip("captum.metrics", reason="captum comes with the extra compare")
    pixels, target = pixels_of(), torch.tensor([3, 5])
    explainer = classlens.Explainer(model, "log_odds")
    attributions = explainer.attribute(pixels, target=target)

    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        noise = 0.1 * torch.ones_like(inputs)
        return noise, inputs - noise

    infidelity = metrics.infidelity(model, perturb, pixels, attributions, target=target)
    change = (model(pixels) - model(pixels - 0.1)).gather(1, target[:, None])[:, 0]
    expected = (0.1 * attributions.sum(dim=(1, 2, 3)) - change) ** 2
    torch.testing.assert_close(infidelity, expected.detach(), rtol=1e-4, atol=1e-6)

    sensitivity = metrics.sensitivity_max(
        explainer.attribute, pixels, perturb_func=lambda inputs, radius: inputs + radius, perturb_radius=0.05,
        n_perturb_samples=1, target=target,
    )  # fmt: skip
    moved = explainer.attribute(pixels + 0.05, target)
    ratio = (moved - attributions).flatten(1).norm(dim=1) / attributions.flatten(1).norm(dim=1)
    torch.testing.assert_close(sensitivity, ratio, rtol=1e-4, atol=1e-6)


def test_wrong_arguments(model: Any) -> None:
    lens = classlens.load("builtin:cifar10")
    refused(lambda: classlens.Explainer(lens, "chefer", loss="logit"), "'chefer' has no option 'loss'")
    pixels = pixels_of()
    refused(lambda: classlens.Explainer(lens).attribute((pixels, pixels)), "2 tensors were given as inputs")
    refused(lambda: classlens.Explainer(lens).attribute(pixels, [3]), "1 target classes were given for 2 images")
    refused(lambda: classlens.explain_func(lens, pixels.numpy(), [3, 99]), "99")
    for wrong in (pixels[:0], pixels[0, 0, 0], torch.tensor([1, 1])):
        refused(partial(classlens.Explainer(lens).attribute, wrong), "expected preprocessed pixels")
        refused(partial(classlens.explain_func, lens, wrong.numpy(), 3), "expected preprocessed pixels")
    refused(lambda: classlens.explain_func(lens, np.array(["cat"]), 3), "inputs of type <U3 were given")


def test_one_image_without_an_axis_of_images() -> None:
    explainer, pixels = classlens.Explainer("builtin:cifar10", "chefer"), pixels_of()
    assert torch.equal(explainer.attribute(pixels[0], 3), explainer.attribute(pixels[:1], 3)[0])
