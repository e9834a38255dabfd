"""Tiny models of torchvision."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import VisionTransformer
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.vision_transformer import ConvStemConfig

from tests.models.oracles import TinyModel, output_itself, randomize

CLASSES = 7
SMALL: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "num_layers": 3,
    "num_heads": 2,
    "hidden_dim": 16,
    "mlp_dim": 32,
    "num_classes": CLASSES,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    # torch's fast path needs an even number of heads
    "odd heads": {"num_heads": 3, "hidden_dim": 24, "norm_layer": partial(nn.LayerNorm, eps=0.3)},
    "stem": {
        "dropout": 0.3,
        "attention_dropout": 0.3,
        "conv_stem_configs": [ConvStemConfig(8, 3, 2), ConvStemConfig(8, 3, 4)],
    },
}


def build(variant: str = "plain", dtype: torch.dtype = torch.float64) -> VisionTransformer:
    model = VisionTransformer(**{**SMALL, **VARIANTS[variant]})
    randomize(model)
    built: VisionTransformer = model.to(dtype).eval()
    return built


def states(model: Any, pixels: Tensor) -> list[Tensor]:
    nodes = {f"encoder.layers.encoder_layer_{block}.add_1": str(block) for block in range(3)}
    with torch.no_grad():
        return list(create_feature_extractor(model, nodes)(pixels).values())


def token_logits(model: Any, x: Tensor, _: int) -> Tensor:
    logits: Tensor = model.heads(model.encoder.ln(x))
    return logits


MODELS: dict[str, TinyModel] = {
    name: TinyModel(
        library="torchvision",
        make=partial(build, name),
        blocks=lambda model: list(model.encoder.layers),
        added=lambda block: [(block.dropout, output_itself)],
        states=states,
        token_logits=token_logits,
        grid=(4, 4),
        size=(32, 32),
        heads=options.get("num_heads", 2),
    )
    for name, options in VARIANTS.items()
}


# Models that are not supported


def put(module: nn.Module, *path: str | int) -> Callable[[], nn.Module]:
    """A model with another module at a path of attributes and indices."""

    def make() -> nn.Module:
        model: Any = build()
        part = model
        for step in path[:-1]:
            part = part[step] if isinstance(step, int) else getattr(part, step)
        if isinstance(path[-1], int):
            part[path[-1]] = module
        else:
            setattr(part, path[-1], module)
        return model.double().eval()  # type: ignore[no-any-return]

    return make


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a hidden layer": (lambda: VisionTransformer(**{**SMALL, "representation_size": 12}), "representation_size"),
    "layers as a head": (
        put(nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, CLASSES)), "heads"),
        "Linear, ReLU, Linear",
    ),
    "no head": (put(nn.Identity(), "heads"), "no layers"),
    "other attention": (
        put(
            nn.MultiheadAttention(16, 2, add_zero_attn=True, batch_first=True), "encoder", "layers", 1, "self_attention"
        ),
        "not plain self-attention",
    ),
    "another block": (
        put(nn.TransformerEncoderLayer(16, 2, batch_first=True), "encoder", "layers", 1),
        "TransformerEncoderLayer",
    ),
    "another norm": (put(nn.BatchNorm1d(17), "encoder", "ln"), "BatchNorm1d"),
    "another MLP": (put(nn.Linear(16, 16), "encoder", "layers", 0, "mlp"), "MLP of type Linear"),
    "SqueezeNet": (lambda: torchvision.models.squeezenet1_1(num_classes=2), "is a SqueezeNet"),
}
