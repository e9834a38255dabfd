"""Tiny models of every supported class of transformers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Any

import torch
import transformers as library
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models.oracles import Added, TinyModel, randomize

transformers: Any = library

CLASSES = 7
SHARED: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3}
SHARED |= {"image_size": 16, "patch_size": 8}
VIT = {**SHARED, "intermediate_size": 40, "layer_norm_eps": 1e-5}
DINO = {**SHARED, "mlp_ratio": 2, "drop_path_rate": 0.1}
TEXT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 49408}


@dataclass(frozen=True)
class Parts:
    """Paths of modules, written out here once more from transformers' sources."""

    layers: str
    norm: str
    attention: str = "attention"
    scale: str = ""


@dataclass(frozen=True)
class Variant:
    """A model class with a config, and what its tokens and head must look like."""

    kind: str
    options: dict[str, Any]
    expected: dict[str, Any] = field(default_factory=dict)
    ending: str = ""


PARTS = {
    "ViT": Parts("vit.layers", "vit.layernorm"),
    "ViTMSN": Parts("vit.layers", "vit.layernorm"),
    "DeiT": Parts("deit.layers", "deit.layernorm"),
    "Beit": Parts("beit.layers", "beit.layernorm", scale="lambda_1"),
    "Dinov2": Parts("dinov2.encoder.layer", "dinov2.layernorm", scale="layer_scale1.lambda1"),
    "Dinov2WithRegisters": Parts(
        "dinov2_with_registers.encoder.layer", "dinov2_with_registers.layernorm", scale="layer_scale1.lambda1"
    ),
    "Siglip": Parts("vision_model.encoder.layers", "vision_model.post_layernorm", "self_attn"),
}


def halves(prefix: int, image: int = 4) -> dict[str, Any]:
    """One half of the head for [CLS], one for the mean of the image tokens, each with the whole bias but once."""
    return {
        "pooling": "cls+avg",
        "queries": ((0,), tuple(range(prefix, prefix + image))),
        "weights": (1.0, 1.0),
        "reader": lambda token: int(token >= prefix),
    }


PATCHES: dict[str, Any] = {"pooling": "avg", "queries": ((1, 2, 3, 4),)}
NO_PREFIX: dict[str, Any] = {"prefix": (), "pooling": "avg", "queries": ((0, 1, 2, 3),)}
DIST: dict[str, Any] = {"prefix": ("cls", "dist")}
TEACHER: dict[str, Any] = {
    **DIST,
    "pooling": "cls+dist",
    "queries": ((0,), (1,)),
    "weights": (0.5, 0.5),
    "reader": lambda token: int(token == 1),
}
RELATIVE = {"use_relative_position_bias": True}
OTHER_SIZE: dict[str, Any] = {"size": (16, 24), "grid": (2, 3)}

VARIANTS: dict[str, Variant] = {
    "ViTForImageClassification": Variant("ViT", VIT),
    "ViTMSNForImageClassification": Variant("ViTMSN", VIT),
    "DeiTForImageClassification": Variant("DeiT", VIT, DIST),
    "DeiTForImageClassificationWithTeacher": Variant("DeiT", VIT, TEACHER, "WithTeacher"),
    "BeitForImageClassification": Variant("Beit", {**VIT, **RELATIVE}, PATCHES),
    "Dinov2ForImageClassification": Variant("Dinov2", DINO, halves(1)),
    "Dinov2WithRegistersForImageClassification": Variant(
        "Dinov2WithRegisters", {**DINO, "num_register_tokens": 2}, {**halves(3), "prefix": ("cls", "reg0", "reg1")}
    ),
    "SiglipForImageClassification": Variant("Siglip", VIT, NO_PREFIX),
    "ViT, no bias, one channel, not square": Variant(
        "ViT",
        {**VIT, "qkv_bias": False, "num_channels": 1, "image_size": [24, 16]},
        {"channels": 1, "size": (24, 16), "grid": (3, 2)},
    ),
    "BEiT, [CLS] head": Variant("Beit", {**VIT, **RELATIVE, "use_mean_pooling": False}),
    "BEiT, no scale": Variant("Beit", {**VIT, "layer_scale_init_value": 0.0}, PATCHES),
    "BEiT, shared bias": Variant("Beit", {**VIT, "use_shared_relative_position_bias": True}, PATCHES),
    "BEiT, another size": Variant(
        "Beit",
        {**VIT, **RELATIVE, "use_absolute_position_embeddings": True},
        {**OTHER_SIZE, "pooling": "avg", "queries": (tuple(range(1, 7)),)},
    ),
    "DINOv2, registers, SwiGLU, another size": Variant(
        "Dinov2WithRegisters",
        {**DINO, "num_register_tokens": 1, "use_swiglu_ffn": True},
        {**OTHER_SIZE, **halves(2, 6), "prefix": ("cls", "reg0")},
    ),
    "SigLIP, no pooling head": Variant("Siglip", {**VIT, "vision_use_head": False}, NO_PREFIX),
}


def build(name: str = "ViTForImageClassification", dtype: torch.dtype = torch.float64) -> Any:
    """A model of the variant in evaluation mode; the same numbers in every precision."""
    variant = VARIANTS[name]
    options: dict[str, Any] = {"num_labels": CLASSES, **variant.options}
    if variant.kind == "Siglip":
        options = {"num_labels": CLASSES, "vision_config": variant.options, "text_config": TEXT}
    config = getattr(transformers, f"{variant.kind}Config")(**options)
    model = getattr(transformers, f"{variant.kind}ForImageClassification{variant.ending}")(config)
    randomize(model)
    return model.to(dtype).eval()


def at(root: Any, path: str) -> Any:
    return reduce(getattr, path.split("."), root)


def parts_of(model: Any) -> Parts:
    return PARTS[type(model).__name__.partition("ForImage")[0]]


def states(model: Any, pixels: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return list(copy.deepcopy(model)(pixels, output_hidden_states=True).hidden_states[1:])


def added_of(kind: str) -> Callable[[Any], list[Added]]:
    parts = PARTS[kind]

    def added(layer: Any) -> list[Added]:
        def scaled(_: Tensor, output: Any) -> Tensor:
            raw: Tensor = output[0] if isinstance(output, tuple) else output
            return raw * at(layer, parts.scale) if parts.scale else raw

        return [(at(layer, parts.attention), scaled)]

    return added


def token_logits(model: Any, x: Tensor, readout: int) -> Tensor:
    x = at(model, parts_of(model).norm)(x)
    name = type(model).__name__
    if name.startswith("Beit") and model.beit.pooler.layernorm is not None:
        x = model.beit.pooler.layernorm(x)
    if name.startswith("Dinov2"):
        return F.linear(x, model.classifier.weight[:, slice(24, 48) if readout else slice(24)], model.classifier.bias)
    if name.endswith("WithTeacher"):
        return (model.distillation_classifier if readout else model.cls_classifier)(x)  # type: ignore[no-any-return]
    return model.classifier(x)  # type: ignore[no-any-return]


MODELS: dict[str, TinyModel] = {
    name: TinyModel(
        library="transformers",
        make=partial(build, name),
        blocks=lambda model: list(at(model, parts_of(model).layers)),
        added=added_of(variant.kind),
        states=states,
        token_logits=token_logits,
        logits=lambda model, pixels: model(pixels).logits,
        **variant.expected,
    )
    for name, variant in VARIANTS.items()
}


# Models that are not supported


class Adapted(nn.Linear):
    """Stands for LoRA, quantized weights and the like."""


def changed(change: Callable[[Any], object]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model: nn.Module = build()
        change(model)
        return model

    return make


def swin() -> nn.Module:
    config = transformers.SwinConfig(image_size=32, embed_dim=8, depths=[1], num_heads=[1], window_size=2, num_labels=3)
    return transformers.SwinForImageClassification(config)  # type: ignore[no-any-return]


def _own_attention(model: Any) -> None:
    attention = model.vit.layers[0].attention
    attention.__class__ = type("Mine", (type(attention),), {})


def layers_as_head(model: Any) -> None:
    model.classifier = nn.Sequential(nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, CLASSES))


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "Swin": (swin, "is a SwinForImageClassification"),
    "no classifier": (lambda: transformers.ViTModel(transformers.ViTConfig(**VIT)), "is a ViTModel"),
    "no head": (
        lambda: transformers.ViTForImageClassification(transformers.ViTConfig(**VIT, num_labels=0)),
        "no classification",
    ),
    "layers as a head": (changed(layers_as_head), "classifier of type Sequential"),
    "another linear layer": (
        changed(lambda model: setattr(model.vit.layers[1].mlp, "fc2", Adapted(40, 24))),
        "mlp.fc2 of type Adapted",
    ),
    "attention of one's own": (changed(_own_attention), "has a Mine"),
    "another norm": (
        changed(lambda model: setattr(model.vit, "layernorm", nn.RMSNorm(24).double())),
        "normalizes with RMSNorm",
    ),
    "another release": (
        changed(lambda model: setattr(model.vit.layers[0].attention, "o_proj", None)),
        "no attention.o_proj in its ViT",
    ),
}
