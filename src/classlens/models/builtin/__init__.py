"""The built-in model: a small ViT trained on CIFAR-10, so that everything can be tried offline (see MODEL_CARD.md)."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import as_file, files

import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torchvision import transforms

from classlens.errors import ClasslensError
from classlens.models.builtin.architecture import CLASS_NAMES, IMAGE_SIZE, MEAN, STD, build
from classlens.models.families import Created, Known, Request

__all__ = ["CLASS_NAMES", "claims", "create", "known", "load", "transform"]


def claims(name: str) -> bool:
    return name.startswith("builtin:")


def create(name: str, request: Request) -> Created:
    """The built-in model by its full name, ``builtin:cifar10``."""
    if not request.plain:
        raise ClasslensError(f"{name!r} comes with its weights: leave out checkpoint, num_classes and model options")
    module = load(name.removeprefix("builtin:")) if request.pretrained else build().eval()
    return Created(module, CLASS_NAMES, transform())


def known() -> Iterator[Known]:
    yield Known("builtin:cifar10", "classlens", "ViT", len(CLASS_NAMES), "here")


def load(name: str) -> VisionTransformer:
    """The built-in model of this name in float32; its weights lie in the package in half precision."""
    if name != "cifar10":
        raise ClasslensError(f"model 'builtin:{name}' does not exist: the built-in model is 'builtin:cifar10'")
    with as_file(files(__package__) / "cifar10.safetensors") as path:
        state = {key: value.float() for key, value in load_file(path).items()}
    # The caller's random numbers are not disturbed by an initialization that is overwritten at once.
    with torch.random.fork_rng(devices=[]):
        model = build()
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or any(not key.endswith("num_batches_tracked") for key in missing):
        raise ClasslensError(
            "the built-in weights do not fit this version of timm; install timm as classlens declares it"
        )
    return model.eval()


def transform() -> transforms.Compose:
    """The shorter side to 32 pixels, the center, CIFAR-10's mean and standard deviation."""
    return transforms.Compose(
        [
            transforms.Resize(IMAGE_SIZE, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(IMAGE_SIZE),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
