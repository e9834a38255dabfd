"""The paper's seven models by name: a table of the weights, heads and transforms that its authors used."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torchvision import transforms

from classlens.errors import ClasslensError, suggestion
from classlens.models import timm, timm_names
from classlens.models.adapter import Adapter, LibraryModel, ModelEntry, ModelRequest
from classlens.models.checkpoint import State
from classlens.models.transforms import Transform, paper_transform

PREFIX = "paper:"


def refinement_transform(size: tuple[int, int]) -> transforms.Compose:
    """The processor of ``facebook/deit-base-distilled-patch16-224``: resize to 256, bicubic, center crop to 224."""
    return transforms.Compose(
        [
            transforms.Resize(round(min(size) * 256 / 224), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )


@dataclass(frozen=True)
class PaperModel:
    """One model of the paper."""

    timm: str
    """timm's name of the architecture, with the tag of the weights where timm has them."""
    classes: int = 1000
    transform: Callable[[tuple[int, int]], Transform] | None = paper_transform
    """From the input size to the eval transform; None for timm's own."""
    file: str | None = None
    """The published checkpoint, where timm has no weights."""
    ignored: str | None = None
    """Prefix of the checkpoint's keys that do not contribute to the logits."""


MODELS: dict[str, PaperModel] = {
    "paper:vit-b-32": PaperModel("vit_base_patch32_224.augreg_in21k_ft_in1k"),
    "paper:vit-b-16": PaperModel("vit_base_patch16_224.augreg_in21k_ft_in1k"),
    "paper:vit-l-16": PaperModel("vit_large_patch16_224.augreg_in21k_ft_in1k"),
    "paper:vit-b-16-miil": PaperModel("vit_base_patch16_224_miil.in21k_ft_in1k", transform=None),
    "paper:vit-b-16-cifar100": PaperModel(
        "vit_base_patch16_224",
        classes=100,
        file="vit_base_patch16_224-CIFAR100.pt of the checkpoint folder that the README of "
        "https://github.com/martinagvilas/vit-cls_emb links to",
    ),
    "paper:vit-b-16-refinement": PaperModel(
        "deit_base_patch16_224",
        transform=refinement_transform,
        file="https://github.com/Muzammal-Naseer/Improving-Adversarial-Transferability-of-Vision-Transformers"
        "/releases/download/v0/deit_base_trm.pth",
        ignored="transformerheads.",
    ),
    "paper:vit-b-16-gap": PaperModel("vit_base_patch16_rpn_224.sw_in1k"),
}


def create(name: str, request: ModelRequest) -> LibraryModel:
    """A model of the paper, with timm's weights or the checkpoint file that its authors published."""
    model = MODELS.get(name)
    if model is None:
        raise ClasslensError(
            f"model {name!r} is not in the paper{suggestion(name, MODELS)}; its models are {', '.join(MODELS)}"
        )
    if model.file and request.pretrained and request.checkpoint is None:
        raise ClasslensError(
            f"timm does not have the weights of model {name!r}: fetch {model.file} and give it as checkpoint=FILE, or "
            "on the command line --checkpoint FILE"
        )
    classes = model.classes if request.num_classes is None else request.num_classes
    try:
        created = timm.create(model.timm, replace(request, num_classes=classes), lambda state: _clean(state, model))
    except ClasslensError as error:
        raise ClasslensError(f"model {name!r} cannot be made: {error}") from None
    module: Any = created.module
    size = tuple(module.patch_embed.img_size)
    transform = created.transform if model.transform is None else model.transform(size)
    names = timm.imagenet_names(classes) if classes == model.classes else created.class_names
    return replace(created, class_names=names, transform=transform, paper_transform=transform)


def list_models() -> Iterator[ModelEntry]:
    """The models of the table."""
    for name, model in MODELS.items():
        weights = "needs a file" if model.file else timm_names.weights(model.timm)
        yield ModelEntry(name, "timm", "paper", model.classes, weights)


def _clean(state: State, model: PaperModel) -> State:
    # The authors' CIFAR-100 file holds the model inside another module, `model`.
    named = {re.sub(r"^model\.", "", key): value for key, value in state.items()}
    return {key: value for key, value in named.items() if model.ignored is None or not key.startswith(model.ignored)}


ADAPTER = Adapter(
    label="the paper",
    about="The seven models of the paper, with its heads and transforms",
    names=tuple(MODELS),
    weights="timm's, or the published file as `checkpoint=`",
    resolves=lambda name: name.startswith(PREFIX),
    create=create,
    list_models=list_models,
    takes_num_classes=True,
)
