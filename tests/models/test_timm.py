"""Which models of timm are read, checked on timm's own architectures, and what is said of those that are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from itertools import pairwise
from typing import Any

import pytest
import timm
import torch
from timm.models import vision_transformer as vit
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import classlens
from classlens.errors import ClasslensError
from tests.zoo import randomize


@dataclass(frozen=True)
class Read:
    """A model of timm's registry, and what must be seen in it."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    prefix: tuple[str, ...] = ("cls",)
    pooling: str = "cls"
    grid: tuple[int, int] = (2, 2)
    blocks: int = 2


# Three heads of eight channels and two blocks unless a model is small as it is: the kind of block is what matters.
SMALL: dict[str, Any] = {"embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 7}
SIZE_32: dict[str, Any] = {**SMALL, "img_size": 32}
REGISTERS = ("reg0", "reg1", "reg2", "reg3")

READ = [
    Read("vit_tiny_patch16_224", {"num_classes": 7}, grid=(14, 14), blocks=12),
    Read("vit_base_patch32_224", {**SMALL, "img_size": 64}),
    Read("vit_base_patch16_224_miil", SIZE_32),
    Read("vit_base_patch16_rpn_224", SIZE_32, prefix=(), pooling="avg"),
    Read("deit_tiny_patch16_224", SIZE_32),
    Read("deit3_small_patch16_224", SIZE_32),
    Read("vit_small_patch14_dinov2", {**SMALL, "img_size": 28}),
    Read("vit_small_patch14_reg4_dinov2", {**SMALL, "img_size": 28}, prefix=("cls", *REGISTERS)),
    Read("vit_base_patch16_clip_224", SIZE_32),
    Read("vit_base_patch16_clip_quickgelu_224", SIZE_32),
    Read("flexivit_small", SIZE_32),
    Read("vit_medium_patch16_gap_256", SIZE_32, prefix=(), pooling="avg"),
    Read("vit_medium_patch16_reg4_gap_256", SIZE_32, prefix=REGISTERS, pooling="avg"),
    Read("vit_base_patch16_siglip_gap_224", SIZE_32, prefix=(), pooling="avg"),
    Read("vit_tiny_patch16_224", {**SIZE_32, "qk_norm": True}),
    Read("vit_tiny_patch16_224", {**SIZE_32, "scale_mlp_norm": True}),
    Read("vit_tiny_patch16_224", {**SIZE_32, "final_norm": False}),
    Read("vit_tiny_patch16_224", {**SIZE_32, "global_pool": "avg"}, pooling="avg"),
    Read("vit_tiny_patch16_224", {**SIZE_32, "global_pool": "avg", "pool_include_prefix": True}, pooling="avg"),
    Read("vit_tiny_patch16_224", {**SMALL, "img_size": (48, 32)}, grid=(3, 2)),
    Read("vit_tiny_patch16_224", {**SIZE_32, "dynamic_img_size": True}),
    Read("vit_tiny_patch16_224", {**SIZE_32, "in_chans": 1}),
    Read("vit_tiny_r_s16_p8_224", {"num_classes": 7, "img_size": 64, "depth": 2}),
    Read("test_vit", {"num_classes": 7}, grid=(10, 10), blocks=6),
    Read("test_vit2", {"num_classes": 7}, prefix=("reg0",), pooling="avg", grid=(10, 10), blocks=8),
]


def named(read: Read) -> str:
    return f"{read.name} {' '.join(map(str, read.options.items()))}"


@pytest.mark.parametrize("read", READ, ids=named)
def test_a_model_that_is_read(read: Read) -> None:
    module = timm.create_model(read.name, **read.options)
    randomize(module)
    lens = classlens.load(module)

    size = lens.view.input_size
    tokens = lens.view.tokens(size)
    assert lens.view.pooling == read.pooling
    assert tokens.prefix == read.prefix
    assert tokens.grid == read.grid
    assert len(lens.view.blocks) == read.blocks
    assert {block.heads for block in lens.view.blocks} == {module.blocks[0].attn.num_heads}

    # Law 1, with the states as timm's modules take and give them; law 2 against the model itself.
    pixels = torch.randn(2, lens.view.channels, *size)
    taken: list[Tensor] = []
    handles = [block.register_forward_pre_hook(lambda _, args: taken.append(args[0])) for block in module.blocks]
    handles.append(module.blocks[-1].register_forward_hook(lambda _, __, output: taken.append(output)))
    with torch.no_grad():
        logits = module.eval()(pixels)
    for handle in handles:
        handle.remove()
    assert float(logits.abs().max()) > 1, "logits near zero would hide a mistake"
    trace = lens.trace(pixels)
    pooled = list(range(*lens.view.pooled.indices(tokens.count)))
    prefix = len(read.prefix)
    expected = [0] if read.pooling == "cls" else list(range(prefix, tokens.count))
    assert pooled == ([*range(prefix), *expected] if read.options.get("pool_include_prefix") else expected)
    for block, (before, after) in enumerate(pairwise(taken)):
        for site, state in (("resid_pre", before), ("resid_post", after)):
            found = torch.from_numpy(trace.logits(site).sel(block=block).values)  # type: ignore[arg-type]
            space = module.head(module.fc_norm(module.norm(state)))
            torch.testing.assert_close(found, space.detach(), atol=1e-4, rtol=1e-4)
    assert taken[0].shape[1] == tokens.count
    torch.testing.assert_close(torch.from_numpy(trace.model_logits.values), logits)
    assert lens.checks.law1 <= 5e-7
    assert lens.checks.law2 <= 1e-4


# Those that are not


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


def made(name: str, **options: Any) -> Callable[[], nn.Module]:
    return partial(timm.create_model, name, **options)


def branches_with_norms() -> nn.Module:
    return tiny(block_fn=vit.ParallelThingsBlock, scale_attn_norm=True)


# A model, and words of the reason.
REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "Swin": (made("swin_tiny_patch4_window7_224", embed_dim=24, depths=(1, 1, 1, 1), num_classes=3), "SwinTransformer"),
    "MaxViT": (made("maxvit_pico_rw_256", num_classes=3), "MaxxVit"),
    "ResNet": (made("resnet10t", num_classes=3), "ResNet"),
    "SAM": (made("samvit_base_patch16", **SIZE_32), "VisionTransformerSAM"),
    "max pooling": (made("vit_tiny_patch16_224", **SIZE_32, global_pool="max"), "max pooling"),
    "avgmax pooling": (made("vit_tiny_patch16_224", **SIZE_32, global_pool="avgmax"), "average and max pooling"),
    "no pooling": (made("vit_tiny_patch16_224", **SIZE_32, global_pool=""), "no pooling"),
    "norms within branches": (branches_with_norms, "norms within the branches"),
    "no head": (made("vit_tiny_patch16_224", **{**SIZE_32, "num_classes": 0}), "no classifier head"),
    "layers as a head": (lambda: with_head(nn.Sequential(nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 5))), "Sequential"),
}
# What older versions of timm do not have.
if "gated" in signature(vit.Attention).parameters:
    REFUSED["gate"] = (with_gate, "gates its attention output")
if hasattr(vit, "AttentionPoolPrr"):
    prr = made("vit_tiny_patch16_224", **SIZE_32, global_pool="prr")
    REFUSED["prr pooling"] = (prr, "patch-recurrent pooling")
if hasattr(vit, "DiffAttention"):
    REFUSED["differential attention"] = (made("vit_dlittle_patch16_reg1_gap_256", **SMALL), "DiffAttention")


@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_that_is_refused(kind: str) -> None:
    make, reason = REFUSED[kind]
    module = make()
    with pytest.raises(ClasslensError) as caught:
        classlens.load(module)
    message = str(caught.value)
    assert repr(type(module).__name__) in message, "the model"
    assert reason in message, "the reason"
    assert "classlens reads" in message, "what is supported"
    assert "\n" not in message


def test_a_refusal_names_the_model_as_the_user_did() -> None:
    with pytest.raises(ClasslensError, match=r"^model 'vit_base_patch16_224' pools with 'max'"):
        classlens.load("vit_base_patch16_224", pretrained=False, **SIZE_32, global_pool="max")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"),
        ("swin_large_patch4_window7_224.ms_in22k", "vit_large_patch16_224"),
        ("maxvit_rmlp_base_rw_224", "vit_base_patch16_224"),
        ("resnet50", "vit_base_patch16_224"),
    ],
)
def test_no_plain_transformer_is_refused_before_its_weights_are_fetched(name: str, nearest: str) -> None:
    with pytest.raises(ClasslensError, match=rf"not a plain Vision Transformer.*nearest .*'{nearest}\."):
        classlens.load(name)
    assert timm.is_model_pretrained(f"{nearest}.augreg_in21k_ft_in1k")


def test_a_model_without_a_head_says_how_to_get_one() -> None:
    with pytest.raises(ClasslensError, match=r"num_classes=N .*checkpoint=FILE"):
        classlens.load("vit_small_patch14_dinov2", pretrained=False, **{**SMALL, "img_size": 28, "num_classes": 0})


def test_a_norm_that_is_not_read() -> None:
    class Softplus(nn.Softplus):
        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__()

    with pytest.raises(ClasslensError, match="Softplus.*LayerNorm and RMSNorm"):
        classlens.load(tiny(norm_layer=Softplus))


def test_a_subclass_of_a_block_is_not_taken_for_the_block() -> None:
    class Louder(vit.Block):
        def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return 2 * super().forward(x, *args, **kwargs)

    with pytest.raises(ClasslensError, match="Louder"):
        classlens.load(tiny(block_fn=Louder))


def test_a_subclass_of_attention_is_not_taken_for_attention() -> None:
    class Sharper(vit.Attention):
        pass

    with pytest.raises(ClasslensError, match="Sharper"):
        classlens.load(tiny(attn_layer=Sharper))
