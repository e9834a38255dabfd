"""Tiny random Vision Transformers, one for every kind of block, norm, head and input that classlens reads.

No parameter is left at a value that hides a mistake: gammas, norm weights, every bias, the prefix tokens and the
position embeddings are all random.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from timm.layers import RmsNorm
from timm.models.vision_transformer import ResPostBlock, VisionTransformer
from torch import Tensor, nn

CLASSES = 11
_LAYER_NORM = partial(nn.LayerNorm, eps=1e-6)


@dataclass(frozen=True)
class Variant:
    """A model's own settings, on top of what all share, and what its tokens and head must look like."""

    options: dict[str, Any]
    prefix: tuple[str, ...] = ("cls",)
    pooled: tuple[int, ...] = (0,)
    """Index of each token that the head pools."""
    size: tuple[int, int] = (16, 16)
    """Height and width of the pixels given to the model."""
    grid: tuple[int, int] = (2, 2)
    post_norm: bool = False
    replace: dict[str, Any] = field(default_factory=dict)
    """Modules to put in the place of the built ones, as functions of the width."""


def _avg(**options: Any) -> dict[str, Any]:
    return {"global_pool": "avg", **options}


VARIANTS: dict[str, Variant] = {
    "cls": Variant({}),
    "cls_layer_scale": Variant({"init_values": 0.1}),
    "cls_fc_norm": Variant({"fc_norm": True}),
    "cls_registers": Variant(
        {"reg_tokens": 2, "init_values": 0.1, "no_embed_class": True}, prefix=("cls", "reg0", "reg1")
    ),
    "cls_post_norm": Variant({"block_fn": ResPostBlock}, post_norm=True),
    "cls_rms": Variant({"norm_layer": partial(RmsNorm, eps=1e-6)}),
    "cls_rms_post_norm": Variant({"norm_layer": RmsNorm, "block_fn": ResPostBlock}, post_norm=True),
    "cls_qk_norm": Variant({"qk_norm": True}),
    "cls_pre_norm": Variant({"pre_norm": True, "norm_layer": partial(nn.LayerNorm, eps=1e-5)}),
    "cls_no_qkv_bias": Variant({"qkv_bias": False}),
    "cls_no_proj_bias": Variant({"proj_bias": False}),
    "cls_wide_eps": Variant({"norm_layer": partial(nn.LayerNorm, eps=0.3)}),
    "cls_plain_norm": Variant({"norm_layer": partial(nn.LayerNorm, eps=1e-6, elementwise_affine=False)}),
    "cls_norm_without_bias": Variant({"norm_layer": partial(nn.LayerNorm, eps=1e-6, bias=False)}),
    "cls_no_final_norm": Variant({"final_norm": False}),
    "cls_two_norms": Variant({"fc_norm": True}, replace={"norm": _LAYER_NORM}),
    "cls_head_without_bias": Variant({}, replace={"head": lambda width: nn.Linear(width, CLASSES, bias=False)}),
    "cls_one_channel": Variant({"in_chans": 1}),
    "cls_not_square": Variant({"img_size": (24, 16)}, size=(24, 16), grid=(3, 2)),
    "cls_dynamic": Variant({"dynamic_img_size": True}, size=(16, 32), grid=(2, 4)),
    "avg": Variant(_avg(class_token=False), prefix=(), pooled=(0, 1, 2, 3)),
    "avg_excludes_cls": Variant(_avg(), pooled=(1, 2, 3, 4)),
    "avg_includes_prefix": Variant(
        _avg(pool_include_prefix=True, reg_tokens=1), prefix=("cls", "reg0"), pooled=(0, 1, 2, 3, 4, 5)
    ),
    "avg_norm_before_pool": Variant(_avg(fc_norm=False), pooled=(1, 2, 3, 4)),
    "avg_rms_norm_before_pool": Variant(_avg(fc_norm=False, norm_layer=RmsNorm), pooled=(1, 2, 3, 4)),
    "avg_two_norms": Variant(_avg(), pooled=(1, 2, 3, 4), replace={"norm": _LAYER_NORM}),
    "avg_post_norm": Variant(
        _avg(class_token=False, block_fn=ResPostBlock), prefix=(), pooled=(0, 1, 2, 3), post_norm=True
    ),
    "avg_registers": Variant(
        _avg(class_token=False, reg_tokens=2, init_values=0.1), prefix=("reg0", "reg1"), pooled=(2, 3, 4, 5)
    ),
    "avg_not_square_post_norm": Variant(
        _avg(img_size=(24, 16), fc_norm=False, block_fn=ResPostBlock),
        pooled=(1, 2, 3, 4, 5, 6),
        size=(24, 16),
        grid=(3, 2),
        post_norm=True,
    ),
}

# One of each kind of head, for tests that need not see every variant.
KINDS = ("cls_layer_scale", "cls_rms_post_norm", "avg_includes_prefix", "avg_norm_before_pool", "avg_two_norms")

# Every variant in double precision, one of each kind in the others.
PRECISIONS = (
    *((name, torch.float64) for name in VARIANTS),
    *((name, dtype) for name in KINDS for dtype in (torch.float32, torch.bfloat16)),
)


def build(name: str, dtype: torch.dtype = torch.float64, *, seed: int = 0, fused: bool = True) -> VisionTransformer:
    """A model of the variant in evaluation mode; float32 and float64 models hold the very same numbers."""
    variant = VARIANTS[name]
    shared = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3, "mlp_ratio": 2}
    model: Any = VisionTransformer(**{**shared, "num_classes": CLASSES, **variant.options})
    for part, make in variant.replace.items():
        setattr(model, part, make(24))
    randomize(model, seed)
    for block in model.blocks:
        block.attn.fused_attn = fused
    made: VisionTransformer = model.to(dtype).eval()
    return made


def randomize(model: nn.Module, seed: int = 0) -> None:
    """Draw every parameter anew: logits come out of order 10, attention neither flat nor one-hot."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name == "head.weight":
                noise = 0.7 * noise
            elif parameter.ndim == 2 or parameter.ndim == 4:
                noise = 1.2 * noise / parameter[0].numel() ** 0.5
            elif name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "gamma")):
                noise = 1 + 0.4 * noise
            else:
                noise = 0.5 * noise
            parameter.copy_(noise)


def pixels(name: str, images: int = 3, dtype: torch.dtype = torch.float64, *, seed: int = 1) -> Tensor:
    """Random pixels that fit the variant; the very same numbers in float32 and float64."""
    variant = VARIANTS[name]
    shape = (images, variant.options.get("in_chans", 3), *variant.size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def targets(images: int = 3, *, seed: int = 2) -> Tensor:
    """A class of interest for each image."""
    return torch.randint(CLASSES, (images,), generator=torch.Generator().manual_seed(seed))


def snapshot(model: nn.Module) -> dict[str, Any]:
    """All that a measurement could leave behind in a model: hooks, flags, patched attributes, changed numbers."""
    return {
        "parts": {
            name: {
                key: list(value) if "hooks" in key else value
                for key, value in vars(module).items()
                if not isinstance(value, Tensor) and key not in ("_parameters", "_buffers", "_modules")
            }
            for name, module in model.named_modules()
        },
        "attention": [
            getattr(module.config, "_attn_implementation", None)
            for module in model.modules()
            if hasattr(module, "config")
        ],
        "children": {name: [id(part) for part in module.children()] for name, module in model.named_modules()},
        "parameters": {
            name: (id(parameter), parameter._version, parameter.requires_grad, parameter.grad, _bytes(parameter))
            for name, parameter in model.named_parameters()
        },
    }


def _bytes(parameter: Tensor) -> bytes:
    return parameter.detach().reshape(-1).view(torch.uint8).numpy().tobytes()
