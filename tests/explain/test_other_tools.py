"""Explanations against those of two established packages, pytorch-grad-cam and torchcam, number by number.

Both were made for feature maps: image tokens become a grid, channels first. A package sees a block's input as the
output of the module before it. Maps are compared before they are scaled to 0…1, and pytorch-grad-cam's pictures after.

Neither package has Chefer's method; pytorch-grad-cam's positive gradient times attention is all but its last line.
torchcam's LeGrad takes torch's ``MultiheadAttention`` alone, thus torchvision's models. Left to themselves both read a
block's logit from the mean of all tokens; for a logit of ``[CLS]`` both are told so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor, nn

import classlens
from classlens.models.builtin import MODELS
from tests import zoo
from tests.models import oracles

pytorch_grad_cam = pytest.importorskip("pytorch_grad_cam", reason="grad-cam comes with the extra compare")

from pytorch_grad_cam.utils.image import scale_cam_image  # noqa: E402
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # noqa: E402

Reshape = Callable[[Tensor], Tensor]

VARIANTS = (
    *zoo.KINDS,
    "cls_registers",
    "cls_pre_norm",
    "cls_not_square",
    "cls_dynamic",
    "cls_qk_norm",
    "avg_registers",
)
# Weights differ by variant and seed alike: a seed for each variant, each seed several times.
SEEDED = [(name, number % 4) for number, name in enumerate(VARIANTS)]


@pytest.fixture
def torchcam() -> Any:
    return pytest.importorskip("torchcam.methods", reason="torchcam comes with the extra compare")


def same(maps: Any, expected: NDArray[np.float64]) -> None:
    """The same up to rounding: in float64 a few thousand operations, of which differences up to 2e-14 were seen."""
    assert expected.dtype == np.float64
    assert expected.max() > 1e-3
    np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-10 * expected.max())


def as_grid(prefix: int, grid: tuple[int, int]) -> Reshape:
    return lambda tokens: tokens[:, prefix:].unflatten(1, grid).permute(0, 3, 1, 2)


def reshape_of(name: str) -> Reshape:
    return as_grid(len(zoo.VARIANTS[name].prefix), zoo.VARIANTS[name].grid)


def before_blocks(model: Any) -> list[nn.Module]:
    """The modules of a timm model whose outputs its blocks take in."""
    return [model.norm_pre, *model.blocks[:-1]]


def outputs_of(targets: Tensor) -> list[Any]:
    return [ClassifierOutputTarget(target) for target in targets.tolist()]


def grad_cam(
    model: Any, pixels: Tensor, targets: Tensor, layers: list[nn.Module], reshape: Reshape
) -> list[NDArray[np.float64]]:
    """pytorch-grad-cam's map of each layer in its own precision, before it is resized and scaled."""
    outputs = outputs_of(targets)
    with pytorch_grad_cam.GradCAM(model, layers, reshape) as cam:
        cam(pixels, outputs)
        states = cam.activations_and_grads
        return [
            np.maximum(cam.get_cam_image(pixels, layer, outputs, activations.numpy(), gradients.numpy()), 0)
            for layer, activations, gradients in zip(layers, states.activations, states.gradients, strict=True)
        ]


@pytest.mark.parametrize(("name", "seed"), SEEDED)
def test_grad_cam_is_that_of_pytorch_grad_cam(name: str, seed: int) -> None:
    pixels, targets = zoo.pixels(name, seed=seed + 10), zoo.targets(seed=seed + 20)
    trace = classlens.load(zoo.build(name, seed=seed)).trace(pixels)
    model, reshape = zoo.build(name, seed=seed), reshape_of(name)
    maps = grad_cam(model, pixels, targets, before_blocks(model), reshape)
    for block, expected in enumerate(maps):
        same(trace.map(targets, method="grad_cam", block=block), expected)
    same(trace.map(targets, method="grad_cam"), maps[-1])


def test_grad_cam_of_the_built_in_model_for_every_class() -> None:
    model = MODELS["builtin:cifar10"].trained().double()
    pixels, targets = torch.randn(10, 3, 32, 32, dtype=torch.float64), torch.arange(10)
    trace = classlens.load("builtin:cifar10", dtype=torch.float64).trace(pixels)
    reshape = as_grid(1, (8, 8))
    # Image by image, where classlens takes them in one batch.
    single = [slice(image, image + 1) for image in range(10)]
    maps = [grad_cam(model, pixels[image], targets[image], before_blocks(model), reshape) for image in single]
    for block in range(len(model.blocks)):
        expected = np.concatenate([blocks[block] for blocks in maps])
        same(trace.map(targets, method="grad_cam", block=block), expected)


@pytest.mark.parametrize("name", ["cls_layer_scale", "cls_not_square"])
def test_pictures_are_those_of_pytorch_grad_cam(name: str) -> None:
    pixels, targets, model = zoo.pixels(name), zoo.targets(), zoo.build(name)
    with pytorch_grad_cam.GradCAM(model, [before_blocks(model)[-1]], reshape_of(name)) as cam:
        expected = cam(pixels, outputs_of(targets))
    maps = classlens.load(zoo.build(name)).trace(pixels).map(targets, method="grad_cam")
    height, width = zoo.VARIANTS[name].size
    assert expected.std() > 0.1
    # The package resizes and scales in float32.
    np.testing.assert_allclose(scale_cam_image(scale_cam_image(maps.values, (width, height))), expected, atol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_grad_cam_is_that_of_torchcam(name: str, torchcam: Any) -> None:
    pixels, targets, model = zoo.pixels(name), zoo.targets(), zoo.build(name)
    trace = classlens.load(zoo.build(name)).trace(pixels)
    with torchcam.GradCAM(model, before_blocks(model), reshape_transform=reshape_of(name)) as cam:
        expected = cam(targets.tolist(), model(pixels), normalized=False)
    for block, layer_map in enumerate(expected):
        same(trace.map(targets, method="grad_cam", block=block), layer_map.numpy())


@pytest.mark.parametrize(("name", "seed"), SEEDED)
def test_chefer_from_the_positive_gradient_times_attention_of_pytorch_grad_cam(name: str, seed: int) -> None:
    pixels, targets, variant = zoo.pixels(name, seed=seed + 10), zoo.targets(seed=seed + 20), zoo.VARIANTS[name]
    model = zoo.build(name, seed=seed, fused=False)
    # Attention weights leave the dropout as image, head, query, token: heads are the channels of the package.
    layers = [block.attn.attn_drop for block in model.blocks]
    outputs = outputs_of(targets)
    with pytorch_grad_cam.GradCAMElementWise(model, layers) as cam:
        cam(pixels, outputs)
        states = cam.activations_and_grads
        positive = [
            cam.get_cam_image(pixels, layer, outputs, weights.numpy(), gradient.numpy(), False) / weights.shape[1]
            for layer, weights, gradient in zip(layers, states.activations, states.gradients, strict=True)
        ]
    relevance = np.eye(positive[0].shape[-1])
    for weighted in positive:
        relevance = relevance + weighted @ relevance
    expected = relevance[:, list(variant.pooled), len(variant.prefix) :].mean(axis=1)
    trace = classlens.load(zoo.build(name, seed=seed)).trace(pixels)
    same(trace.explain(targets, method="chefer"), expected)


TORCHVISION: dict[str, int] = {"num_layers": 3, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32, "num_classes": 7}


def torchvision_model(seed: int) -> Any:
    model = torchvision.models.VisionTransformer(image_size=24, patch_size=8, **TORCHVISION)
    oracles.randomize(model, seed=seed)
    return model.double().eval()


def cls_logits(model: Any, tokens: Tensor) -> Tensor:
    logits: Tensor = model.heads(model.encoder.ln(tokens)[:, 0])
    return logits


@pytest.mark.parametrize(("pool", "seed"), [("mean", 0), ("mean", 1), ("head", 2), ("head", 3)])
def test_legrad_is_that_of_torchcam(pool: str, seed: int, torchcam: Any) -> None:
    model, pixels, targets = torchvision_model(seed), oracles.pixels(3, (24, 24)), torch.tensor([2, 6, 0])
    # A logit of [CLS] depends on one row of its block's attention, one of all tokens on every row.
    project = partial(cls_logits, model) if pool == "head" else None
    trace = classlens.load(torchvision_model(seed)).trace(pixels)
    options = {} if pool == "mean" else {"pool": pool}

    def legrad(blocks: list[nn.Module]) -> NDArray[np.float64]:
        with torchcam.LeGrad(model, blocks, score_projection=project) as cam:
            model(pixels)
            maps: NDArray[np.float64] = cam(targets.tolist(), normalized=False)[0].numpy()
        return maps

    blocks = list(model.encoder.layers)
    same(trace.map(targets, method="legrad", **options), legrad(blocks))
    by_block = trace.explain(targets, method="legrad", **options).sum("head") * len(blocks)
    for number, block in enumerate(blocks):
        same(by_block.sel(block=number), legrad([block]).reshape(3, 9))


@pytest.mark.parametrize("seed", [0, 1])
def test_grad_cam_of_torchvision_s_models_is_that_of_torchcam(seed: int, torchcam: Any) -> None:
    model, pixels, targets = torchvision_model(seed), oracles.pixels(3, (24, 24)), torch.tensor([2, 6, 0])
    trace = classlens.load(torchvision_model(seed)).trace(pixels)
    layers = [model.encoder.dropout, *model.encoder.layers[:-1]]
    with torchcam.GradCAM(model, layers, reshape_transform=as_grid(1, (3, 3))) as cam:
        expected = cam(targets.tolist(), model(pixels), normalized=False)
    for block, layer_map in enumerate(expected):
        same(trace.map(targets, method="grad_cam", block=block), layer_map.numpy())
