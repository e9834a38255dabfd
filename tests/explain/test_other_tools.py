"""Grad-CAM against the packages that people use for it: pytorch-grad-cam and torch-cam.

Both want to be told where tokens are a grid and which layer to look at; the output of a block is what the next one
takes in. Neither has the paper's gradient, rollout, Chefer's rule or LeGrad, which are held to literal twins in
``test_methods.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import classlens
from classlens.models.builtin import load
from tests import zoo

Map = Callable[[Any, nn.Module, Tensor, Tensor, tuple[int, int], int], Any]
VARIANTS = (
    "cls",
    "cls_layer_scale",
    "cls_registers",
    "cls_rms_post_norm",
    "cls_not_square",
    "avg",
    "avg_includes_prefix",
)


def as_grid(grid: tuple[int, int], prefix: int, tokens: Tensor) -> Tensor:
    """``[image, token, channel]`` as ``[image, channel, row, column]``."""
    return tokens[:, prefix:].transpose(1, 2).reshape(len(tokens), -1, *grid)


def pytorch_grad_cam(
    model: Any, layer: nn.Module, pixels: Tensor, target: Tensor, grid: tuple[int, int], prefix: int
) -> Any:
    package = pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    wanted = [ClassifierOutputTarget(int(one)) for one in target]
    with package.GradCAM(model, [layer], reshape_transform=partial(as_grid, grid, prefix)) as cam:
        cam(pixels, wanted)
        seen = cam.activations_and_grads
        # What it finds before it scales each map to 0…1 and to the size of the picture.
        found = cam.get_cam_image(pixels, layer, wanted, seen.activations[0].numpy(), seen.gradients[0].numpy())
    return np.maximum(found, 0)


def torchcam(model: Any, layer: nn.Module, pixels: Tensor, target: Tensor, grid: tuple[int, int], prefix: int) -> Any:
    package = pytest.importorskip("torchcam.methods", reason="torchcam is not installed")

    with package.GradCAM(model, layer, reshape_transform=partial(as_grid, grid, prefix)) as cam:
        scores = model(pixels)
        (found,) = cam(target.tolist(), scores, normalized=False)
    return found.numpy()


@pytest.mark.parametrize("tool", [pytorch_grad_cam, torchcam])
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("block", [1, 2])
def test_grad_cam_of_small_models(tool: Map, name: str, block: int) -> None:
    variant = zoo.VARIANTS[name]
    prefix = len(variant.prefix) if variant.prefix or "class_token" in variant.options else 1
    for seed in range(3):
        model: Any = zoo.build(name, seed=seed)
        pixels, target = zoo.pixels(name, seed=seed), zoo.targets(seed=seed)
        expected = tool(model, model.blocks[block - 1], pixels, target, variant.grid, prefix)
        found = classlens.load(model).trace(pixels).map(target, method="grad_cam", block=block)
        assert np.abs(expected).max() > 1e-3
        # float64: some thousand operations of order 1.
        np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("tool", [pytorch_grad_cam, torchcam])
def test_grad_cam_of_the_built_in_model(tool: Map) -> None:
    model: Any = load("cifar10").double()
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = torch.tensor([3, 0, 9, 3])
    expected = tool(model, model.blocks[-2], pixels, target, (8, 8), 1)
    found = classlens.load(model).trace(pixels).map(target, method="grad_cam")
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-10)
