"""The models that come with classlens, so that everything can be tried offline."""

from __future__ import annotations

from collections.abc import Iterator

from classlens.errors import ClasslensError
from classlens.models.adapter import Adapter, LibraryModel, ModelEntry, ModelRequest
from classlens.models.builtin import cifar10, photos

__all__ = ["ADAPTER", "MODELS", "create", "list_models"]

_PREFIX = "builtin:"
MODELS = {f"{_PREFIX}{model.name}": model for model in (photos.MODEL, cifar10.MODEL)}
"""Built-in models by their full names."""


def create(name: str, request: ModelRequest) -> LibraryModel:
    """A built-in model by its full name, such as ``builtin:photos``."""
    if name not in MODELS:
        raise ClasslensError(f"model {name!r} does not exist: give {' or '.join(map(repr, MODELS))}")
    if not request.is_default:
        raise ClasslensError(f"{name!r} comes with its weights: leave out checkpoint, num_classes and model options")
    model = MODELS[name]
    module = model.trained() if request.pretrained else model.untrained()
    return LibraryModel(module, model.class_names, model.transform())


def list_models() -> Iterator[ModelEntry]:
    for name, model in MODELS.items():
        yield ModelEntry(name, "classlens", "ViT", len(model.class_names), "here")


ADAPTER = Adapter(
    label="classlens",
    about="Small Vision Transformers that come with classlens: one for photos, one for CIFAR-10",
    names=tuple(MODELS),
    weights="the package",
    resolves=lambda name: name.startswith(_PREFIX),
    create=create,
    list_models=list_models,
)
