"""Tiny models of timm: hand-built Vision Transformers, and a small version of every kind of architecture."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import timm
import torch
from timm.models import eva
from timm.models import vision_transformer as vit
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from tests import zoo
from tests.models.oracles import Added, TinyModel, output_itself

# Three heads of eight channels and two blocks, unless an architecture is small already.
SMALL: dict[str, Any] = {"embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 7}
SIZE_32: dict[str, Any] = {**SMALL, "img_size": 32}
SIZE_28: dict[str, Any] = {**SMALL, "img_size": 28}
REGISTERS = ("reg0", "reg1", "reg2", "reg3")


def token_logits(model: Any, x: Tensor, readout: int) -> Tensor:
    x = model.norm(x)
    if getattr(model, "attn_pool", None) is not None:
        x = model.attn_pool(x.flatten(0, -2)[:, None]).unflatten(0, x.shape[:-1])
    if hasattr(model, "head_dist"):
        logits: Tensor = (model.head_dist if readout == 1 else model.head)(x)
        return logits
    logits = model.head(model.fc_norm(x))
    return logits


def states(model: Any, pixels: Tensor) -> list[Tensor]:
    with torch.no_grad():
        found = model.forward_intermediates(
            pixels,
            output_fmt="NLC",
            return_prefix_tokens=model.num_prefix_tokens > 0,
            norm=False,
            intermediates_only=True,
        )
    pairs = [state if isinstance(state, tuple | list) else (state, state[:, :0]) for state in found]
    return [torch.cat([prefix, image], dim=1) for image, prefix in pairs]


def added(block: Any) -> list[Added]:
    if hasattr(block, "attns"):
        return [(branch, output_itself) for branch in block.attns]
    if getattr(block, "attn_out_proj", None) is not None:
        return [(block.attn_out_proj, lambda _, output: block.ls(output))]
    if getattr(block, "out_proj", None) is not None:
        width = block.num_heads * block.head_dim
        return [
            (block.out_proj, lambda x, _: block.ls(F.linear(x[..., :width], block.out_proj.weight[:, :width]))),
        ]
    return [(block.drop_path1, output_itself)]


def of_timm(make: Callable[[], nn.Module], queries: tuple[int, ...] = (0,), **expected: Any) -> TinyModel:
    """A model of timm; ``queries`` are the tokens that its head pools."""

    def randomized() -> nn.Module:
        model = make()
        zoo.randomize(model)
        return model.double().eval()

    shared: dict[str, Any] = {"size": (32, 32), "depth": 2, "queries": expected.pop("readouts", (queries,))}
    return TinyModel(
        library="timm",
        make=randomized,
        blocks=lambda model: list(model.blocks),
        added=added,
        states=states,
        token_logits=token_logits,
        **{**shared, **expected},
    )


def named(name: str, options: dict[str, Any] | None = None) -> Callable[[], nn.Module]:
    return partial(timm.create_model, name, **(SIZE_32 if options is None else options))


def small_eva(**options: Any) -> nn.Module:
    return eva.Eva(**{**SIZE_32, **options})


def parallel_scaling(**options: Any) -> nn.Module:
    block: Any = partial(ParallelScalingBlock, **options)
    return VisionTransformer(**SIZE_32, init_values=0.1, qkv_bias=True, block_fn=block)


ALL = (0, 1, 2, 3)
PATCHES = (1, 2, 3, 4)
AVG: dict[str, Any] = {"pooling": "avg", "queries": PATCHES}
NO_PREFIX: dict[str, Any] = {"prefix": (), "pooling": "avg", "queries": ALL}
MAP: dict[str, Any] = {"pooling": "map", "attributed": False}

FAMILIES: dict[str, TinyModel] = {
    "DeiT distilled": of_timm(
        named("deit_tiny_distilled_patch16_224"),
        prefix=("cls", "dist"),
        pooling="cls+dist",
        readouts=((0,), (1,)),
        weights=(0.5, 0.5),
        reader=lambda token: int(token == 1),
    ),
    "BEiT": of_timm(named("beit_base_patch16_224"), **AVG),
    "BEiT, shared positions": of_timm(
        named("beit_base_patch16_224", {**SIZE_32, "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}), **AVG
    ),
    "BEiT, [CLS] head": of_timm(named("beit_base_patch16_224", {**SIZE_32, "global_pool": "token"})),
    "BEiTv2": of_timm(named("beitv2_base_patch16_224"), **AVG),
    "EVA": of_timm(named("eva_giant_patch14_224", SIZE_28), size=(28, 28), **AVG),
    "EVA, biases apart": of_timm(partial(small_eva, qkv_fused=True), **AVG),
    "EVA, norms inside": of_timm(
        partial(small_eva, scale_attn_inner=True, scale_mlp=True, swiglu_mlp=True, use_rot_pos_emb=True), **AVG
    ),
    "EVA, post-norm, norms inside": of_timm(
        partial(small_eva, use_post_norm=True, scale_attn_inner=True, scale_mlp=True, swiglu_mlp=True), **AVG
    ),
    "EVA-02": of_timm(named("eva02_base_patch14_224", SIZE_28), size=(28, 28), **AVG),
    "EVA-02-E, post-norm": of_timm(named("eva02_enormous_patch14_clip_224", SIZE_28), size=(28, 28)),
    "DINOv3": of_timm(
        named("vit_small_patch16_dinov3"), prefix=("cls", *REGISTERS), pooling="avg", queries=(5, 6, 7, 8)
    ),
    "SigLIP": of_timm(named("vit_base_patch16_siglip_224"), prefix=(), queries=ALL, **MAP),
    "PE, pool takes [CLS]": of_timm(named("vit_pe_core_base_patch16_224"), queries=(0, *PATCHES), **MAP),
    "map without prefix": of_timm(
        named("vit_tiny_patch16_224", {**SIZE_32, "global_pool": "map"}), queries=PATCHES, **MAP
    ),
    "parallel branches (18x2)": of_timm(named("vit_small_patch16_18x2_224"), heads=6, branches=2),
    "parallel branches, LayerScale": of_timm(
        named("vit_small_patch16_18x2_224", {**SIZE_32, "init_values": 0.1}), heads=6, branches=2
    ),
    "parallel scaling": of_timm(named("vit_base_patch16_xp_224")),
    "parallel scaling, LayerScale, one bias": of_timm(parallel_scaling),
    "relative position": of_timm(named("vit_relpos_small_patch16_224"), **NO_PREFIX),
    "relative position, shared": of_timm(named("vit_srelpos_small_patch16_224"), **NO_PREFIX),
    "relative position, post-norm": of_timm(named("vit_relpos_base_patch16_rpn_224"), **NO_PREFIX),
    "relative position, [CLS]": of_timm(named("vit_relpos_base_patch16_cls_224")),
    "relative position, [CLS] not pooled": of_timm(named("vit_relpos_base_patch16_clsgap_224"), **AVG),
    "ViT, norm of joined heads": of_timm(named("vit_tiny_patch16_224", {**SIZE_32, "scale_attn_norm": True})),
    "ViT, norm of hidden units": of_timm(named("vit_tiny_patch16_224", {**SIZE_32, "scale_mlp_norm": True})),
    "flexivit": of_timm(named("flexivit_small")),
}
# Older versions of timm have no grouped queries, and turn queries in float32 whatever the model runs in.
if "num_kv_heads" in signature(eva.Eva).parameters:
    FAMILIES["RoPE, mixed"] = of_timm(named("vit_base_patch16_rope_mixed_ape_224"))
    FAMILIES["EVA, grouped queries"] = of_timm(
        partial(small_eva, attn_type="rope", qkv_fused=False, num_kv_heads=1, use_rot_pos_emb=True), **AVG
    )
# Architectures whose blocks are as above, with stems, tokens and norms of their own.
STEMS: dict[str, TinyModel] = {
    "joint output projection": of_timm(partial(parallel_scaling, fuse_out_proj=True)),
    "DINOv2, registers": of_timm(
        named("vit_small_patch14_reg4_dinov2", SIZE_28), size=(28, 28), prefix=("cls", *REGISTERS)
    ),
    "hybrid stem": of_timm(
        named("vit_tiny_r_s16_p8_224", {"num_classes": 7, "img_size": 64, "depth": 2}), size=(64, 64)
    ),
    "CLIP": of_timm(named("vit_base_patch16_clip_quickgelu_224")),
    "registers, average": of_timm(
        named("vit_medium_patch16_reg4_gap_256"), prefix=REGISTERS, pooling="avg", queries=(4, 5, 6, 7)
    ),
    "one register": of_timm(
        named("test_vit2", {"num_classes": 7, "img_size": 32, "depth": 2}),
        prefix=("reg0",),
        heads=2,
        **AVG,
    ),
}


def of_zoo(name: str) -> TinyModel:
    variant = zoo.VARIANTS[name]
    return TinyModel(
        library="timm",
        make=partial(zoo.build, name),
        blocks=lambda model: list(model.blocks),
        added=added,
        states=states,
        token_logits=token_logits,
        prefix=variant.prefix,
        grid=variant.grid,
        size=variant.size,
        channels=variant.options.get("in_chans", 3),
        classes=zoo.CLASSES,
        pooling=variant.options.get("global_pool", "cls"),
        queries=(variant.pooled,),
    )


ZOO: dict[str, TinyModel] = {name: of_zoo(name) for name in zoo.VARIANTS}
# Models whose description is that of another one but for its numbers.
REPEATED = ("BEiTv2", "EVA-02", "parallel branches (18x2)", "relative position, [CLS]", "flexivit")
# Hand-built models that differ from all others in their description.
OWN = (
    "cls_registers",
    "cls_rms_post_norm",
    "cls_qk_norm",
    "cls_plain_norm",
    "cls_no_final_norm",
    "cls_head_without_bias",
    "cls_one_channel",
    "cls_dynamic",
    "avg_includes_prefix",
    "avg_two_norms",
    "avg_not_square_post_norm",
)


# Models that are not supported


def tiny(**options: Any) -> VisionTransformer:
    shared = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
    return VisionTransformer(**{**shared, **options})


def with_head(head: nn.Module) -> VisionTransformer:
    model = tiny()
    model.register_module("head", head)
    return model


def with_gate() -> VisionTransformer:
    model = tiny()
    for block in model.blocks:
        block.attn = vit.Attention(24, 3, gated=True)
    return model


class Softplus(nn.Softplus):
    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()


class Louder(vit.Block):
    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return 2 * super().forward(x, *args, **kwargs)


class Sharper(vit.Attention):
    pass


class OtherMlp(vit.Mlp):
    pass


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "Swin": (named("swin_tiny_patch4_window7_224", {"embed_dim": 24, "depths": (1, 1, 1, 1)}), "SwinTransformer"),
    "MaxViT": (named("maxvit_pico_rw_256", {"num_classes": 3}), "MaxxVit"),
    "ResNet": (named("resnet10t", {"num_classes": 3}), "ResNet"),
    "SAM": (named("samvit_base_patch16"), "VisionTransformerSAM"),
    "max pooling": (named("vit_tiny_patch16_224", {**SIZE_32, "global_pool": "max"}), "max pooling"),
    "avgmax pooling": (
        named("vit_tiny_patch16_224", {**SIZE_32, "global_pool": "avgmax"}),
        "average and max pooling",
    ),
    "no pooling": (named("vit_tiny_patch16_224", {**SIZE_32, "global_pool": ""}), "no pooling"),
    "norms within branches": (
        partial(tiny, block_fn=vit.ParallelThingsBlock, scale_attn_norm=True),
        "norms within the branches",
    ),
    "no head": (named("vit_tiny_patch16_224", {**SIZE_32, "num_classes": 0}), "no classifier head"),
    "layers as a head": (lambda: with_head(nn.Sequential(nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 5))), "Sequential"),
    "another norm": (partial(tiny, norm_layer=Softplus), "normalizes with Softplus"),
    "a subclass of a block": (partial(tiny, block_fn=Louder), "Louder"),
    "a subclass of attention": (partial(tiny, attn_layer=Sharper), "Sharper"),
    "a subclass of an MLP": (partial(tiny, mlp_layer=OtherMlp), "OtherMlp"),
}
# Older versions of timm lack these.
if "gated" in signature(vit.Attention).parameters:
    REFUSED["gate"] = (with_gate, "gates its attention output")
if hasattr(vit, "AttentionPoolPrr"):
    REFUSED["prr pooling"] = (
        named("vit_tiny_patch16_224", {**SIZE_32, "global_pool": "prr"}),
        "patch-recurrent pooling",
    )
if hasattr(vit, "DiffAttention"):
    REFUSED["differential attention"] = (named("vit_dlittle_patch16_reg1_gap_256", SMALL), "DiffAttention")
