"""The paper's seven models by name: weights, head and transform as its authors used them, as a table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torchvision import transforms

from classlens.errors import ClasslensError, suggestion
from classlens.models import timm, timm_names
from classlens.models.checkpoint import State
from classlens.models.families import Created, Known, Request
from classlens.models.timm import view
from classlens.models.transforms import Transform, paper_transform

__all__ = ["MODELS", "PaperModel", "claims", "create", "known", "known_as", "view"]

PREFIX = "paper:"


def refinement_transform(size: tuple[int, int]) -> transforms.Compose:
    """The processor of ``facebook/deit-base-distilled-patch16-224``: 256 bicubic, the center 224."""
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
    """timm's name of the architecture, with the tag of its weights where timm has them."""
    classes: int = 1000
    transform: Callable[[tuple[int, int]], Transform] | None = paper_transform
    """From the input size to the eval transform; None for timm's own."""
    file: str | None = None
    """Where its checkpoint is published, when timm does not have it."""
    ignored: str | None = None
    """The start of keys of the checkpoint that belong to a part which takes no part in the logits."""


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


def claims(name: str) -> bool:
    """``paper:vit-b-32`` and its like."""
    return name.startswith(PREFIX)


def create(name: str, request: Request) -> Created:
    """A model of the paper, with timm's weights or the checkpoint file that its authors published."""
    model = MODELS.get(name)
    if model is None:
        raise ClasslensError(
            f"model {name!r} is none of the paper's{suggestion(name, MODELS)}; its models are {', '.join(MODELS)}"
        )
    if model.file and request.pretrained and request.checkpoint is None:
        raise ClasslensError(
            f"the weights of model {name!r} are a file that timm does not have: fetch {model.file} and give it as "
            "checkpoint=FILE, or on the command line --checkpoint FILE"
        )
    classes = model.classes if request.num_classes is None else request.num_classes
    try:
        created = timm.create(model.timm, replace(request, num_classes=classes), lambda state: _cleaned(state, model))
    except ClasslensError as error:
        raise ClasslensError(f"model {name!r} cannot be made: {error}") from None
    if model.transform is None:
        return created
    module: Any = created.module
    return replace(created, transform=model.transform(tuple(module.patch_embed.img_size)))


def known() -> Iterator[Known]:
    """The names of the table."""
    for name, model in MODELS.items():
        yield Known(
            name, "timm", "paper", model.classes, "needs a file" if model.file else timm_names.weights(model.timm)
        )


def known_as(module: nn.Module) -> Created:
    """Nothing beyond what timm knows: a module does not tell that the paper used it."""
    return timm.known_as(module)


def _cleaned(state: State, model: PaperModel) -> State:
    # The authors' CIFAR-100 file holds the model inside another module, as `model.`.
    named = {re.sub(r"^model\.", "", key): value for key, value in state.items()}
    return {key: value for key, value in named.items() if model.ignored is None or not key.startswith(model.ignored)}
