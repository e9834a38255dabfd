"""Every family of timm that classlens reads, against the untouched model: states, logits, laws, explanation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.models import eva
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

import classlens
from classlens.errors import ClasslensError
from classlens.lens.verify import verify
from tests import literal, zoo
from tests.models.test_timm import SIZE_32, SMALL

REGISTERS = ("reg0", "reg1", "reg2", "reg3")
SIZE_28: dict[str, Any] = {**SMALL, "img_size": 28}


@dataclass(frozen=True)
class Family:
    """A model of timm and what must be seen in it; sized down unless ``options`` are empty."""

    make: Callable[[], nn.Module]
    prefix: tuple[str, ...] = ("cls",)
    pooling: str = "cls"
    queries: tuple[slice, ...] = (slice(0, 1),)
    """The tokens that each head pools."""
    heads: int = 3
    attributed: bool = True


def of_timm(name: str, options: dict[str, Any] | None = None) -> Callable[[], nn.Module]:
    return partial(timm.create_model, name, **(SIZE_32 if options is None else options))


def small_eva(**options: Any) -> nn.Module:
    shared: dict[str, Any] = {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 7}
    return eva.Eva(**{**shared, **options})


def parallel_scaling(**options: Any) -> nn.Module:
    shared: dict[str, Any] = {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 7}
    return VisionTransformer(**{**shared, **options}, block_fn=ParallelScalingBlock)


AVG: dict[str, Any] = {"pooling": "avg", "queries": (slice(1, None),)}
NO_PREFIX: dict[str, Any] = {"prefix": (), "pooling": "avg", "queries": (slice(0, None),)}

FAMILIES: dict[str, Family] = {
    "DeiT distilled": Family(
        of_timm("deit_tiny_distilled_patch16_224"),
        prefix=("cls", "dist"),
        pooling="cls+dist",
        queries=(slice(0, 1), slice(1, 2)),
    ),
    "BEiT": Family(of_timm("beit_base_patch16_224"), **AVG),
    "BEiT, shared positions": Family(
        of_timm("beit_base_patch16_224", {**SIZE_32, "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}), **AVG
    ),
    "BEiT, [CLS] head": Family(of_timm("beit_base_patch16_224", {**SIZE_32, "global_pool": "token"})),
    "BEiTv2": Family(of_timm("beitv2_base_patch16_224"), **AVG),
    "EVA": Family(of_timm("eva_giant_patch14_224", SIZE_28), **AVG),
    "EVA, biases apart": Family(partial(small_eva, qkv_fused=True), **AVG),
    "EVA, norms inside": Family(
        partial(small_eva, scale_attn_inner=True, scale_mlp=True, swiglu_mlp=True, use_rot_pos_emb=True), **AVG
    ),
    "EVA, post-norm, norms inside": Family(
        partial(small_eva, use_post_norm=True, scale_attn_inner=True, scale_mlp=True, swiglu_mlp=True), **AVG
    ),
    "EVA-02": Family(of_timm("eva02_base_patch14_224", SIZE_28), **AVG),
    "EVA-02-E, post-norm": Family(of_timm("eva02_enormous_patch14_clip_224", SIZE_28)),
    "DINOv3": Family(
        of_timm("vit_small_patch16_dinov3"), prefix=("cls", *REGISTERS), pooling="avg", queries=(slice(5, None),)
    ),
    "SigLIP": Family(
        of_timm("vit_base_patch16_siglip_224"),
        prefix=(),
        pooling="map",
        queries=(slice(0, None),),
        attributed=False,
    ),
    "PE, pool takes [CLS]": Family(
        of_timm("vit_pe_core_base_patch16_224"), pooling="map", queries=(slice(0, None),), attributed=False
    ),
    "map without prefix": Family(
        of_timm("vit_tiny_patch16_224", {**SIZE_32, "global_pool": "map"}),
        pooling="map",
        queries=(slice(1, None),),
        attributed=False,
    ),
    "parallel branches (18x2)": Family(of_timm("vit_small_patch16_18x2_224"), heads=6),
    "parallel branches, LayerScale": Family(
        of_timm("vit_small_patch16_18x2_224", {**SIZE_32, "init_values": 0.1}), heads=6
    ),
    "parallel scaling": Family(of_timm("vit_base_patch16_xp_224")),
    "parallel scaling, LayerScale, one bias": Family(partial(parallel_scaling, init_values=0.1, qkv_bias=True)),
    "relative position": Family(of_timm("vit_relpos_small_patch16_224"), **NO_PREFIX),
    "relative position, shared": Family(of_timm("vit_srelpos_small_patch16_224"), **NO_PREFIX),
    "relative position, post-norm": Family(of_timm("vit_relpos_base_patch16_rpn_224"), **NO_PREFIX),
    "relative position, [CLS]": Family(of_timm("vit_relpos_base_patch16_cls_224")),
    "relative position, [CLS] not pooled": Family(of_timm("vit_relpos_base_patch16_clsgap_224"), **AVG),
    "ViT, norm of joined heads": Family(of_timm("vit_tiny_patch16_224", {**SIZE_32, "scale_attn_norm": True})),
    "ViT, norm of hidden units": Family(of_timm("vit_tiny_patch16_224", {**SIZE_32, "scale_mlp_norm": True})),
    "flexivit": Family(of_timm("flexivit_small")),
}
# Older versions of timm have no grouped queries, and turn queries in float32 whatever the model runs in.
if "num_kv_heads" in signature(eva.Eva).parameters:
    FAMILIES["RoPE, mixed"] = Family(of_timm("vit_base_patch16_rope_mixed_ape_224"))
    FAMILIES["EVA, grouped queries"] = Family(
        partial(small_eva, attn_type="rope", qkv_fused=False, num_kv_heads=1, use_rot_pos_emb=True), **AVG
    )


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> tuple[Family, Any, classlens.Lens, Tensor]:
    """A family, its model in float64, its lens and pixels."""
    made = FAMILIES[request.param]
    module: Any = made.make()
    zoo.randomize(module)
    module = module.double().eval()
    lens = classlens.load(module)
    pixels = torch.randn(2, 3, *lens.view.input_size, dtype=torch.float64)
    return made, module, lens, pixels


Made = tuple[Family, Any, classlens.Lens, Tensor]


def test_tokens_and_pooling(family: Made) -> None:
    made, _, lens, _ = family
    assert lens.view.prefix == made.prefix
    assert lens.view.pooling == made.pooling
    assert tuple(readout.pooled for readout in lens.view.readouts) == made.queries
    assert lens.view.tokens(lens.view.input_size).grid == (2, 2)
    assert {block.heads for block in lens.view.blocks} == {made.heads}


def test_states_and_logits_are_those_of_the_library(family: Made) -> None:
    made, module, lens, pixels = family
    with torch.no_grad():
        logits = module(pixels)
        inner = module.forward_intermediates(
            pixels, output_fmt="NLC", return_prefix_tokens=bool(made.prefix), norm=False, intermediates_only=True
        )
    trace = lens.trace(pixels)
    np.testing.assert_allclose(trace.model_logits.values, logits, atol=1e-12)
    found = dict(trace.recording.walk("resid_post", slice(None)))
    assert len(found) == len(inner) == 2
    for block, state in enumerate(inner):
        image, prefix = state if isinstance(state, tuple | list) else (state, None)
        prefix = image[:, :0] if prefix is None else prefix
        torch.testing.assert_close(found[block], torch.cat([prefix, image], dim=1), atol=1e-10, rtol=0)


def test_tokens_are_projected_as_the_model_does_with_its_last_ones(family: Made) -> None:
    _, module, lens, pixels = family
    trace = lens.trace(pixels)
    (last,) = (x for block, x in trace.recording.walk("resid_post", slice(None)) if block == 1)
    found = torch.from_numpy(trace.logits("resid_post").sel(block=1).values)
    for number in range(last.shape[1]):
        with torch.no_grad():
            expected = _heads(module, number)(last[:, number])
        torch.testing.assert_close(found[:, number], expected, atol=1e-10, rtol=0)


def test_attribution_adds_up(family: Made) -> None:
    made, _, lens, pixels = family
    trace = lens.trace(pixels)
    for target in (0, 5):
        if not made.attributed:
            with pytest.raises(ClasslensError, match="pools by attention"):
                trace.attribution(target)
            continue
        parts = trace.attribution(target)
        total = parts.embed + parts.attention.sum(("block", "head")) + parts.mlp.sum("block") + parts.bias
        np.testing.assert_allclose(total, trace.model_logits.sel(category=target), atol=1e-10)


def test_every_law_holds_and_nothing_is_left_behind(family: Made) -> None:
    made, module, lens, pixels = family
    before = zoo.snapshot(module)
    laws = {law.name: law for law in verify(lens.view, pixels)}
    assert all(law.holds for law in laws.values()), laws
    assert (laws["attribution"].error is not None) == made.attributed
    lens.trace(pixels).explain(1)
    assert zoo.snapshot(module) == before


@pytest.mark.parametrize("loss", ["logit", "cross_entropy"])
def test_the_explanation_is_the_gradient(family: Made, loss: str) -> None:
    """Autograd through the model itself, its attention unfused, one head and one query after the other."""
    made, module, lens, pixels = family
    target = torch.tensor([2, 4])
    prefix = len(made.prefix)
    found = lens.trace(pixels).explain(target, loss=loss)
    with _watched(module) as passed, torch.enable_grad():
        module(pixels)
    for block, (weights, added) in enumerate(passed):
        total: Any = 0.0
        for number, queries in enumerate(made.queries):
            share = 1 / len(made.queries)
            chosen = range(*queries.indices(added.shape[1]))
            for query in chosen:
                logits = _heads(module, number)(added[:, query])
                value = literal.loss_of(logits, target, loss).sum()
                gradients = torch.autograd.grad(value, weights, retain_graph=True)
                # Attention of other queries has no part in it, and that of a head is its own.
                rows = torch.cat([g[:, :, query] for g in gradients], dim=1)
                total = total - share * rows / len(chosen)
        np.testing.assert_allclose(found.sel(block=block).values, total[..., prefix:], atol=1e-10)


def _heads(module: Any, number: int) -> Callable[[Tensor], Tensor]:
    """The class space of a token (or of a readout), by the model's own layers."""

    def logits(x: Tensor) -> Tensor:
        x = module.norm(x)
        if getattr(module, "attn_pool", None) is not None:
            x = module.attn_pool(x[:, None])
        if hasattr(module, "head_dist"):
            own: Tensor = (module.head_dist if number == 1 else module.head)(x)
            return own
        projected: Tensor = module.head(module.fc_norm(x))
        return projected

    return logits


class _watched:
    """What passes in each block while attention is not fused: ``(weights of each branch, what attention adds)``."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._stack = ExitStack()

    def __enter__(self) -> list[tuple[list[Tensor], Tensor]]:
        self._stack.enter_context(literal.unfused(self._module))
        passed: list[tuple[list[Tensor], Tensor]] = []
        for block in self._module.blocks:
            self._watch(block, passed)
        return passed

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _watch(self, block: Any, passed: list[tuple[list[Tensor], Tensor]]) -> None:
        parallel = hasattr(block, "attns")
        drops = [branch.attn.attn_drop for branch in block.attns] if parallel else [_attention_of(block).attn_drop]
        weights: list[Tensor] = []
        outputs: list[Tensor] = []
        for drop in drops:
            self._hook(drop, lambda x: weights.append(x))
        if parallel:
            for branch in block.attns:
                self._hook(branch, lambda x: outputs.append(x))
        elif hasattr(block, "in_proj"):
            self._hook(block.attn_out_proj, lambda x: outputs.append(block.ls(x)))
        else:
            self._hook(block.drop_path1, lambda x: outputs.append(x))
        handle = block.register_forward_hook(lambda *_: passed.append((weights, sum(outputs[1:], outputs[0]))))
        self._stack.callback(handle.remove)

    def _hook(self, module: nn.Module, take: Callable[[Tensor], object]) -> None:
        self._stack.callback(module.register_forward_hook(lambda _, __, output: take(output) and None).remove)


def _attention_of(block: Any) -> Any:
    return block.attn if hasattr(block, "attn") else block


def test_a_bias_that_both_branches_share_counts_to_the_mlp() -> None:
    """One output projection of heads and hidden units, taken apart by hand."""
    block: Any
    module: Any = VisionTransformer(
        img_size=32,
        embed_dim=24,
        depth=2,
        num_heads=3,
        num_classes=7,
        init_values=0.1,
        block_fn=partial(ParallelScalingBlock, fuse_out_proj=True),  # type: ignore[arg-type]
    )
    zoo.randomize(module)
    lens = classlens.load(module.double().eval())
    pixels = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    taken: list[Tensor] = []
    handles = [
        block.out_proj.register_forward_pre_hook(lambda _, args: taken.append(args[0])) for block in module.blocks
    ]
    trace = lens.trace(pixels)
    for handle in handles:
        handle.remove()
    for number, block in enumerate(module.blocks):
        weight, bias, gamma = block.out_proj.weight, block.out_proj.bias, block.ls.gamma
        attn = gamma * F.linear(taken[number][..., :24], weight[:, :24])
        mlp = gamma * F.linear(taken[number][..., 24:], weight[:, 24:], bias)
        torch.testing.assert_close(trace.recording.activation("attn_out", number), attn, atol=1e-12, rtol=0)
        torch.testing.assert_close(trace.recording.activation("mlp_out", number), mlp, atol=1e-12, rtol=0)
    parts = trace.attribution(3)
    total = parts.embed + parts.attention.sum(("block", "head")) + parts.mlp.sum("block") + parts.bias
    np.testing.assert_allclose(total, trace.model_logits.sel(category=3), atol=1e-10)
    with pytest.raises(ClasslensError, match="share one residual add"):
        trace.logits("resid_mid")


REAL: dict[str, dict[str, Any]] = {
    "deit_tiny_distilled_patch16_224": {},
    "beit_base_patch16_224": {},
    "eva02_tiny_patch14_224": {"num_classes": 1000},
    "vit_small_patch16_dinov3": {"num_classes": 1000},
    "vit_base_patch16_siglip_224": {"num_classes": 1000},
    "vit_small_patch16_18x2_224": {},
    "vit_base_patch16_xp_224": {"num_classes": 1000},
    "vit_relpos_small_patch16_224": {},
    "flexivit_small": {},
    "vit_tiny_r_s16_p8_224": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_a_model_of_real_size(name: str) -> None:
    """In float32, as people run them."""
    module = timm.create_model(name, **REAL[name])
    zoo.randomize(module)
    lens = classlens.load(module)
    pixels = torch.randn(1, 3, *lens.view.input_size)
    with torch.no_grad():
        logits = module.eval()(pixels)
    assert float(logits.abs().max()) > 1, "logits near zero would hide a mistake"
    trace = lens.trace(pixels)
    torch.testing.assert_close(torch.from_numpy(trace.model_logits.values), logits)
    assert lens.checks.law1 <= 5e-7
    assert lens.checks.law2 <= 1e-4
    if lens.view.pooling != "map":
        parts = trace.attribution("predicted")
        total = parts.embed + parts.attention.sum(("block", "head")) + parts.mlp.sum("block") + parts.bias
        np.testing.assert_allclose(total, parts.logit, atol=1e-3)
