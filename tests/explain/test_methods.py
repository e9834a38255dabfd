"""Every method against its slow twin, and on small models whose maps are known by hand."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import classlens
from classlens.explain import batching
from classlens.explain.registry import METHODS, parse_method
from classlens.lens.tuned_lens import TunedLens
from tests import zoo
from tests.explain import methods_twin as twins
from tests.models.tiny_timm import FAMILIES
from tests.refusals import refused

TWINS: dict[str, Callable[..., list[float]]] = {
    "attention": twins.attention,
    "rollout": twins.rollout,
    "chefer": twins.chefer,
    "grad_cam": twins.grad_cam,
    "legrad": twins.legrad,
    "legrad:pool=head": twins.legrad_by_head,
}
MODELS = (*zoo.KINDS, "cls_registers", "cls_not_square", "cls_qk_norm", "avg", "avg_post_norm")


@pytest.mark.parametrize("name", MODELS)
def test_the_map_is_its_twin_s(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, pixels, variant = zoo.build(name), zoo.pixels(name), zoo.VARIANTS[name]
    trace = classlens.load(zoo.build(name)).trace(pixels)
    image_tokens = list(range(len(variant.prefix), len(variant.prefix) + variant.grid[0] * variant.grid[1]))
    passes = [twins.written_out(model, image[None]) for image in pixels]
    for text, twin in TWINS.items():
        method, options = parse_method(text)
        rows = [
            twin(model, record, int(target), variant.pooled, image_tokens)
            for record, target in zip(passes, zoo.targets(), strict=True)
        ]
        expected = np.array(rows).reshape(3, *variant.grid)
        assert np.abs(expected).max() > 1e-3, text
        # float64, a few thousand operations of order 1.
        maps = trace.map(zoo.targets(), method=method, **options)
        np.testing.assert_allclose(maps.values, expected, atol=1e-10, err_msg=text)
        with monkeypatch.context() as patched:
            patched.setattr(batching, "_WEIGHTS", 1)
            few = trace.map(zoo.targets(), method=method, **options)
        np.testing.assert_allclose(few.values, expected, atol=1e-10, err_msg=text)


@pytest.mark.parametrize("name", ["cls_layer_scale", "avg_includes_prefix"])
def test_every_method_keeps_what_its_record_says(name: str) -> None:
    """Dims, sign and dependence on the class; with frozen parameters the same map, and nothing left behind."""
    model = zoo.build(name)
    lens, pixels, target = classlens.load(model), zoo.pixels(name), zoo.targets()
    trace = lens.trace(pixels)
    trained = {method: trace.explain(target, method=method) for method in METHODS}
    assert all(parameter.grad is None for parameter in model.parameters())
    model.requires_grad_(False)
    before = zoo.snapshot(model)
    trace = lens.trace(pixels)
    for method, record in METHODS.items():
        maps = trace.explain(target, method=method)
        np.testing.assert_array_equal(maps.values, trained[method].values, err_msg=method)
        assert maps.dims == record.dims, method
        assert maps.attrs["method"] == method
        assert maps.sizes["token"] == 4, method
        assert not maps.isnull().any(), method
        assert record.signed or float(maps.min()) >= 0, method
        others = trace.explain((target + 1) % zoo.CLASSES, method=method)
        assert np.allclose(maps.values, others.values) != record.of_class, method
        assert zoo.snapshot(model) == before, method


@pytest.mark.parametrize("name", ["cls_layer_scale", "avg"])
def test_a_class_rather_than_another(name: str) -> None:
    """The map of a class against another is that of a model with the difference of their rows as the row of the class.

    Between two classes the odds are those of a model that has only the two.
    """
    pixels, target, rival = zoo.pixels(name), zoo.targets(), (zoo.targets() + 2) % zoo.CLASSES
    trace = classlens.load(zoo.build(name)).trace(pixels)
    compared = [method for method, record in METHODS.items() if record.of_class]
    assert all("against" in METHODS[method].options for method in compared)
    for image, (one, other) in enumerate(zip(target.tolist(), rival.tolist(), strict=True)):
        model, two = zoo.build(name), zoo.build(name)
        for module, twin in zip(model.modules(), two.modules(), strict=True):
            if isinstance(module, nn.Linear) and module.out_features == zoo.CLASSES:
                for parameter in module.parameters():
                    parameter.data[one] -= parameter.data[other]
                for key, parameter in list(twin.named_parameters()):
                    twin.register_parameter(key, nn.Parameter(parameter.data[[one, other]]))
        difference, pair = (classlens.load(each).trace(pixels[image : image + 1]) for each in (model, two))
        for method in compared:
            options = {"loss": "logit"} if method == "class_gradient" else {}
            result = trace.map(target, method=method, against=rival)[image].values
            if method == "class_rank":
                expected = trace.map(one, method=method)[image].values - trace.map(other, method=method)[image].values
            else:
                expected = difference.map(
                    one, method="logit_attribution" if method == "log_odds" else method, **options
                )
                expected = expected[0].values
            np.testing.assert_allclose(result, expected, atol=1e-10, err_msg=method)
        odds = trace.map(target, against=rival)[image]
        np.testing.assert_allclose(odds, pair.map(0, method="log_odds")[0], atol=1e-10)


def by_hand() -> Any:
    """Tokens ``c = (1, 0)`` and ``p = (3, -2)``, no norms, no MLP, keys and queries 0, values and head the identity.

    Attention is a half everywhere, so ``z = c + (c + p) / 2``, and ``∂z/∂A[cls, j]`` is token ``j`` itself.
    """
    model: Any = VisionTransformer(
        img_size=4, patch_size=4, embed_dim=2, depth=1, num_heads=1, mlp_ratio=1, num_classes=2, final_norm=False
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.pos_embed.copy_(torch.tensor([[[1.0, 0.0], [3.0, -2.0]]]))
        block = model.blocks[0]
        block.norm1, block.norm2 = nn.Identity(), nn.Identity()
        block.attn.qkv.weight[4:] = torch.eye(2)
        block.attn.proj.weight.copy_(torch.eye(2))
        model.head.weight.copy_(torch.eye(2))
    return model.eval()


BY_HAND: dict[str, tuple[float, float]] = {
    # For class 0 and class 1.
    "attention": (0.5, 0.5),
    "rollout": (0.25, 0.25),  # (A + I) / 2
    "chefer": (1.5, 0.0),  # R = I + (∇A ⊙ A)⁺ = I + (3 / 2)⁺ and (-2 / 2)⁺
    "grad_cam": (1.5, 0.0),  # the gradient at p is half a unit vector: (3 / 2)⁺ and (-2 / 2)⁺
    "legrad": (1.5, 0.0),  # the mean over two tokens, so (3 / 2)⁺ and (-2 / 2)⁺ at both queries
    "legrad:pool=head": (1.5, 0.0),  # 3⁺ and (-2)⁺, the mean over two queries, of which one has a gradient
    "logit_attribution": (1.5, -1.0),  # A · v
    "log_odds": (2.5, -2.5),  # of two classes the other is the only rival: 1.5 - -1, and -1 - 1.5
    "class_rank": (1.0, 0.5),  # p after the block: p + (c + p) / 2 = (5, -3): class 0 is ahead
}


@pytest.mark.parametrize("method", BY_HAND)
def test_two_tokens_and_one_head_by_hand(method: str) -> None:
    trace = classlens.load(by_hand()).trace(torch.zeros(1, 3, 4, 4))
    name, options = parse_method(method)
    for target, value in enumerate(BY_HAND[method]):
        assert trace.map(target, method=name, **options).values.tolist() == [[[pytest.approx(value, abs=1e-6)]]]
    for target, value in enumerate((3.0, -2.0)):
        assert trace.map(target, method="class_gradient", loss="logit").values.tolist() == [
            [[pytest.approx(value, abs=1e-6)]]
        ]


FIRST, SECOND = [[1 / 4, 3 / 4], [2 / 5, 3 / 5]], [[1 / 3, 2 / 3], [1 / 2, 1 / 2]]


def two_blocks_by_hand() -> Any:
    """Two blocks that attend as ``FIRST`` and ``SECOND`` say, whatever else the tokens hold.

    The first two channels say which token it is, and queries and keys read those alone; values are the last two, the
    contents ``c = (1, -2)`` and ``p = (3, 2)``, and each is the logit of a class. No norms, no MLP.
    """
    model: Any = VisionTransformer(
        img_size=4, patch_size=4, embed_dim=4, depth=2, num_heads=1, mlp_ratio=1, num_classes=2, final_norm=False
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.pos_embed.copy_(torch.tensor([[[1.0, 0.0, 1.0, -2.0], [0.0, 1.0, 3.0, 2.0]]]))
        for block, weights in zip(model.blocks, (FIRST, SECOND), strict=True):
            block.norm1, block.norm2 = nn.Identity(), nn.Identity()
            query, key, value = block.attn.qkv.weight.view(3, 4, 4)
            query[:2, :2] = torch.eye(2)
            key[:2, :2] = 2 * torch.tensor(weights).log()  # halved by the square root of four channels
            value[2:, 2:] = torch.eye(2)
            block.attn.proj.weight.copy_(torch.eye(4))
        model.head.weight[:, 2:] = torch.eye(2)
    return model.eval()


TWO_BLOCKS: dict[str, tuple[float, float]] = {
    # The second block's row of c.
    "attention": (2 / 3, 2 / 3),
    # (A + I) / 2 are [5/8 3/8; 1/5 4/5] and [2/3 1/3; 1/4 3/4]; the later to the left. The other way it is 47/96.
    "rollout": (2 / 3 * 3 / 8 + 1 / 3 * 4 / 5,) * 2,
    # After the first block c is 7/2 and p 26/5 for class 0, -1 and 12/5 for class 1. With the gradients (1 + 1/3) c,
    # (1 + 1/3) p, 2/3 c, 2/3 p at the first block the positive products are [1/3 3; 4/15 6/5] and [0 2; 0 4/5], at the
    # second [7/6 52/15; 0 0] and [0 8/5; 0 0]. R = (I + second)(I + first); the other way it is 3.6 for class 1.
    "chefer": (3 + 7 / 6 * 3 + 52 / 15 * (1 + 6 / 5), 2 + 8 / 5 * (1 + 4 / 5)),
    # Half of p at either query, as it enters each of two blocks.
    "legrad": ((3 + 26 / 5) / 2 / 2, (2 + 12 / 5) / 2 / 2),
}


@pytest.mark.parametrize("method", TWO_BLOCKS)
def test_two_blocks_by_hand(method: str) -> None:
    trace = classlens.load(two_blocks_by_hand()).trace(torch.zeros(1, 3, 4, 4))
    for target, value in enumerate(TWO_BLOCKS[method]):
        # float32, numbers of order 10.
        assert trace.map(target, method=method).item() == pytest.approx(value, abs=1e-5)


def test_two_heads_weigh_their_own_rows() -> None:
    """A distilled model: the mean of what [CLS] and [DIST] say, whose logits are the mean of two heads."""
    module: Any = FAMILIES["DeiT distilled"].make()
    zoo.randomize(module)
    module = module.double().eval()
    pixels, target = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64), 3
    trace = classlens.load(module).trace(pixels)
    weights: list[torch.Tensor] = []
    after: list[torch.Tensor] = []
    with ExitStack() as hooks:
        for block in module.blocks:
            block.attn.fused_attn = False
            hooks.enter_context(block.attn.attn_drop.register_forward_hook(lambda _, __, out: weights.append(out)))
            hooks.enter_context(block.register_forward_hook(lambda _, __, out: after.append(out)))
        logits = module(pixels.requires_grad_())[:, target].sum()
    rolled = relevance = torch.eye(6, dtype=torch.float64)
    for pattern, gradient in zip(weights, torch.autograd.grad(logits, weights, retain_graph=True), strict=True):
        rolled = (pattern.mean(dim=1) + torch.eye(6)) / 2 @ rolled
        relevance = relevance + (pattern * gradient).clamp_min(0).mean(dim=1) @ relevance
    for method, matrix in (("attention", weights[-1].mean(dim=1)), ("rollout", rolled), ("chefer", relevance)):
        expected = (0.5 * matrix[:, 0, 2:] + 0.5 * matrix[:, 1, 2:]).detach()
        np.testing.assert_allclose(trace.explain(target, method=method), expected, atol=1e-12)
        assert (matrix[:, 0, 2:] - matrix[:, 1, 2:]).abs().max() > 1e-2
        dist = trace.explain(target, method=method, query="dist")
        np.testing.assert_allclose(dist, matrix[:, 1, 2:].detach(), atol=1e-12)
    maps = trace.explain(target, method="legrad")
    for number, (pattern, x) in enumerate(zip(weights, after, strict=True)):
        mean = module.norm(x.mean(dim=1))
        logit = (module.head(mean) + module.head_dist(mean))[:, target].sum() / 2
        (gradient,) = torch.autograd.grad(logit, pattern, retain_graph=True)
        # Three heads, two blocks.
        np.testing.assert_allclose(maps[:, number], gradient.clamp_min(0).mean(dim=2)[..., 2:] / 6, atol=1e-12)


@pytest.mark.parametrize("pool", ["mean", "head"])
def test_legrad_reads_blocks_through_the_translators_of_a_tuned_lens(pool: str) -> None:
    generator = torch.Generator().manual_seed(3)
    model, pixels = zoo.build("cls"), zoo.pixels("cls")
    plain = classlens.load(model)
    width = plain.view.blocks[0].attn.weight.shape[0]
    weight = torch.eye(width) + 0.3 * torch.randn(3, width, width, generator=generator)
    bias = torch.randn(3, width, generator=generator)
    lens = plain.with_tuned_lens(TunedLens(weight.double(), bias.double()))
    maps = lens.trace(pixels).explain(zoo.targets(), method="legrad", pool=pool)
    for image, target in enumerate(zoo.targets().tolist()):
        record = twins.written_out(model, pixels[image : image + 1])
        for block, (weights, x) in enumerate(zip(record.attention, record.after, strict=True)):
            translated = x @ weight[block].double().T + bias[block].double()
            token = translated.mean(dim=1) if pool == "mean" else translated[:, 0]
            (gradient,) = torch.autograd.grad(model.head(model.norm(token))[0, target], weights, retain_graph=True)
            heads, queries = gradient.shape[1:3]
            expected = gradient[0].clamp_min(0).sum(dim=1)[:, 1:] / (3 * heads * queries)
            np.testing.assert_allclose(maps[image, block], expected, atol=1e-10)
    assert float(maps.max()) > 1e-3


def test_random_is_one_order_for_all_images() -> None:
    trace = classlens.load(zoo.build("cls")).trace(zoo.pixels("cls"))
    first, second = (trace.explain(method="random", seed=seed).values for seed in (0, 5))
    assert sorted(first[0].tolist()) == [0, 0.25, 0.5, 0.75]
    assert (first == first[0]).all()
    orders = {tuple(trace.explain(method="random", seed=seed).values[0]) for seed in range(40)}
    assert len(orders) > 10
    np.testing.assert_array_equal(second, trace.explain(method="random", seed=5).values)


def test_class_rank_counts_classes_ahead() -> None:
    trace = classlens.load(zoo.build("avg_includes_prefix")).trace(zoo.pixels("avg_includes_prefix"))
    maps = trace.explain(zoo.targets(), method="class_rank")
    logits = trace.logits("resid_post").sel(token=maps.token)
    for image, target in enumerate(zoo.targets().tolist()):
        ahead = (logits[image] > logits[image].sel(category=target)).sum("category")
        np.testing.assert_allclose(maps[image], 1 - ahead / zoo.CLASSES)


@pytest.mark.parametrize(
    ("method", "option", "values", "says"),
    [
        ("grad_cam", "block", [3, -1, "1", "abc", 1.0, True, [1]], "a whole number from 0 to 2"),
        ("random", "seed", [-1, "a", 1.5, 2**70, None], f"a whole number from 0 to {2**63 - 1}"),
        ("legrad", "pool", ["cls"], "give one of mean, head"),
        ("legrad", "pool", [3, ["mean"]], "give 'mean' or 'head'"),
    ],
)
def test_options_of_another_kind(method: str, option: str, values: list[object], says: str) -> None:
    trace = classlens.load(zoo.build("cls")).trace(zoo.pixels("cls"))
    for value in values:
        refused(lambda value=value: trace.explain(0, method=method, **{option: value}), f"{option} ", says)  # type: ignore[misc]
