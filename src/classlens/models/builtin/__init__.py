"""The built-in model: a small ViT trained on CIFAR-10, so that everything can be tried offline (see MODEL_CARD.md)."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import as_file, files

import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torchvision import transforms

from classlens.errors import ClasslensError
from classlens.models.adapter import Adapter, LibraryModel, ModelEntry, ModelRequest
from classlens.models.builtin.architecture import CLASS_NAMES, IMAGE_SIZE, MEAN, STD, build

__all__ = ["ADAPTER", "CLASS_NAMES", "create", "list_models", "load", "transform"]


def create(name: str, request: ModelRequest) -> LibraryModel:
    """The built-in model by its full name, ``builtin:cifar10``."""
    if not request.is_default:
        raise ClasslensError(f"{name!r} comes with its weights: leave out checkpoint, num_classes and model options")
    module = load(name.removeprefix("builtin:")) if request.pretrained else build().eval()
    return LibraryModel(module, CLASS_NAMES, transform())


def list_models() -> Iterator[ModelEntry]:
    yield ModelEntry("builtin:cifar10", "classlens", "ViT", len(CLASS_NAMES), "here")


def load(name: str) -> VisionTransformer:
    """The built-in model of this name in float32; its weights are stored in half precision."""
    if name != "cifar10":
        raise ClasslensError(f"model 'builtin:{name}' does not exist: the built-in model is 'builtin:cifar10'")
    with as_file(files(__package__) / "cifar10.safetensors") as path:
        state = {key: value.float() for key, value in load_file(path).items()}
    # Initialization draws random numbers; the caller's generator stays as it is.
    with torch.random.fork_rng(devices=[]):
        model = build()
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or any(not key.endswith("num_batches_tracked") for key in missing):
        raise ClasslensError(
            "the built-in weights do not fit this version of timm; install timm as classlens declares it"
        )
    return model.eval()


def transform() -> transforms.Compose:
    """Resize the shorter side to 32 pixels, crop the center, normalize with CIFAR-10's mean and deviation."""
    return transforms.Compose(
        [
            transforms.Resize(IMAGE_SIZE, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(IMAGE_SIZE),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


ADAPTER = Adapter(
    label="classlens",
    about="A small Vision Transformer that comes with classlens, trained on CIFAR-10",
    names=("builtin:cifar10",),
    weights="the package",
    resolves=lambda name: name.startswith("builtin:"),
    create=create,
    list_models=list_models,
)
