"""Hooks: the right tensors at the right places, changes where they are asked for, and no trace afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import classlens
from classlens.forward.hooks import replacing, replacing_output, watching
from classlens.forward.run import evaluating
from classlens.models.view import ModelView, Point
from tests import literal, zoo


class _Stop(Exception):
    """Raised inside a context on purpose."""


def _view(name: str, dtype: torch.dtype = torch.float64) -> ModelView:
    return classlens.load(zoo.build(name, dtype)).view


def _seen(view: ModelView, pixels: Tensor, *names: str) -> dict[str, list[Tensor]]:
    found: dict[str, list[Tensor]] = {}

    def receiver(name: str) -> Callable[[int, Tensor], None]:
        def receive(block: int, tensor: Tensor) -> None:
            assert len(found.setdefault(name, [])) == block, "blocks report in their order, once each"
            found[name].append(tensor)

        return receive

    with watching(view, {name: receiver(name) for name in names}), torch.no_grad():
        view.module(pixels)
    return found


@pytest.mark.parametrize(("name", "dtype"), zoo.PRECISIONS)
def test_every_site_is_what_the_block_s_own_parts_compute(name: str, dtype: torch.dtype) -> None:
    view, pixels = _view(name, dtype), zoo.pixels(name, dtype=dtype)
    expected = literal.states(view.module, pixels)
    found = _seen(view, pixels, "resid_pre", "attn_out", "mlp_out", "resid_post")
    for site, blocks in found.items():
        assert len(blocks) == 3
        for block, (one, other) in enumerate(zip(blocks, expected[site], strict=True)):
            # The same modules on the same numbers: bit for bit.
            assert torch.equal(one, other), (site, block)


@pytest.mark.parametrize("name", zoo.VARIANTS)
def test_values_and_attention_are_those_of_softmax_attention(name: str) -> None:
    view, pixels = _view(name), zoo.pixels(name)
    pre = literal.states(view.module, pixels)["resid_pre"]
    with view.unfused():
        found = _seen(view, pixels, "values", "attention")
    blocks: Any = view.module.blocks
    for block, x, values, attention in zip(blocks, pre, found["values"], found["attention"], strict=True):
        with torch.no_grad():
            weights, own = literal.attention_parts(block, x)
        torch.testing.assert_close(values, own, rtol=0, atol=1e-12)
        torch.testing.assert_close(attention, weights, rtol=0, atol=1e-12)
        assert values.shape == (3, 3, x.shape[1], 8)


@pytest.mark.parametrize("name", ["cls_post_norm", "avg_post_norm", "cls"])
def test_what_stands_before_a_post_norm(name: str) -> None:
    view, pixels = _view(name), zoo.pixels(name)
    found = _seen(view, pixels, "attn_raw", "mlp_raw")
    if not zoo.VARIANTS[name].post_norm:
        assert found == {}, "a point that blocks do not have is passed over"
        return
    sites = literal.states(view.module, pixels)
    blocks: Any = view.module.blocks
    with torch.no_grad():
        for number, block in enumerate(blocks):
            assert torch.equal(found["attn_raw"][number], block.attn(sites["resid_pre"][number]))
            assert torch.equal(found["mlp_raw"][number], block.mlp(sites["resid_mid"][number]))


def _mixed(model: Any) -> None:
    """A model as someone may hold it: some parts training, one frozen, hooks of their own, one gradient kept."""
    model.train()
    model.blocks[1].eval()
    model.blocks[0].mlp.train()
    model.head.eval()
    model.blocks[2].attn.fused_attn = False
    model.patch_embed.requires_grad_(False)
    model.blocks[0].register_forward_hook(lambda *_: None)
    model.blocks[0].attn.qkv.register_forward_pre_hook(lambda *_: None)
    model.head.bias.grad = torch.ones_like(model.head.bias)


@contextmanager
def _watching_all(view: ModelView) -> Iterator[None]:
    with watching(view, {name: lambda *_: None for name in view.blocks[0].points}):
        yield


CONTEXTS: dict[str, Callable[[ModelView], AbstractContextManager[Any]]] = {
    "watching": _watching_all,
    "evaluating": lambda view: evaluating(view.module),
    "unfused": lambda view: view.unfused(),
}


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("context", CONTEXTS)
def test_a_context_leaves_no_trace(context: str, raises: bool) -> None:
    view = _view("cls_post_norm")
    _mixed(view.module)
    before = zoo.snapshot(view.module)
    try:
        with CONTEXTS[context](view):
            assert zoo.snapshot(view.module)["parts"] != before["parts"], "the context does something"
            if raises:
                raise _Stop
    except _Stop:
        assert raises
    assert zoo.snapshot(view.module) == before


def test_contexts_do_what_they_say() -> None:
    view = _view("cls")
    _mixed(view.module)
    blocks: Any = view.module.blocks
    with evaluating(view.module):
        assert not any(part.training for part in view.module.modules())
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()
    with view.unfused():
        assert [block.attn.fused_attn for block in blocks] == [False, False, False]
    assert [block.attn.fused_attn for block in blocks] == [True, True, False]


def test_a_receiver_that_raises_leaves_no_trace() -> None:
    view, pixels = _view("cls"), zoo.pixels("cls")
    before = zoo.snapshot(view.module)

    def receive(block: int, _: Tensor) -> None:
        if block == 1:
            raise _Stop

    with pytest.raises(_Stop), watching(view, {"mlp_out": receive, "values": lambda *_: None}):
        view.module(pixels)
    assert zoo.snapshot(view.module) == before


def test_contexts_nest() -> None:
    view, pixels = _view("cls"), zoo.pixels("cls")
    before = zoo.snapshot(view.module)
    seen: list[str] = []
    with watching(view, {"mlp_out": lambda *_: seen.append("outer")}):
        with watching(view, {"mlp_out": lambda *_: seen.append("inner")}), view.unfused(), view.unfused():
            view.module(pixels)
        view.module(pixels)
    assert seen == ["outer", "inner"] * 3 + ["outer"] * 3
    assert zoo.snapshot(view.module) == before


def test_parts_that_pass_in_several_modules_are_joined_as_they_are_named() -> None:
    """As in blocks of parallel branches; the branches may run in another order than they are named."""
    view, pixels = _view("cls"), zoo.pixels("cls")
    blocks: Any = view.module.blocks
    expected = literal.states(view.module, pixels)
    for end, sites in (("output", ("attn_out", "mlp_out")), ("input", ("attn_out", "mlp_out"))):
        modules = (blocks[0].drop_path2, blocks[0].drop_path1)
        joined = Point(modules[0], end, more=modules[1:], join=lambda parts: torch.stack(parts))  # type: ignore[arg-type]
        one = replace(view, blocks=(replace(view.blocks[0], points={**view.blocks[0].points, "both": joined}),))
        found = _seen(one, pixels, "both")["both"]
        assert len(found) == 1
        assert torch.equal(found[0], torch.stack([expected[site][0] for site in reversed(sites)]))


def test_checkpointed_blocks_are_read_too() -> None:
    """Gradient checkpointing calls the blocks in another way."""
    view, pixels = _view("cls"), zoo.pixels("cls")
    expected = literal.states(view.module, pixels)
    model: Any = view.module
    model.set_grad_checkpointing()
    for site, blocks in _seen(view, pixels, "resid_pre", "attn_out", "mlp_out", "resid_post").items():
        assert all(torch.equal(one, other) for one, other in zip(blocks, expected[site], strict=True))


def test_replaced_tensors_go_on_and_the_latest_first_change_comes_first() -> None:
    view, pixels = _view("cls"), zoo.pixels("cls")
    point = view.blocks[1].points["mlp_out"]
    expected = literal.states(view.module, pixels)["mlp_out"][1]
    before = zoo.snapshot(view.module)
    with replacing(point, lambda x, _: 2 * x), replacing(point, lambda x, _: x + 1, first=True):
        with replacing(point, lambda x, _: x - 3):
            seen = _seen(view, pixels, "mlp_out")["mlp_out"]
    torch.testing.assert_close(seen[1], 2 * (expected + 1) - 3, rtol=0, atol=1e-12)
    assert zoo.snapshot(view.module) == before


@pytest.mark.parametrize("end", ["input", "output"])
def test_the_last_of_several_summed_parts_takes_the_whole_change(end: Any) -> None:
    """As in blocks of parallel branches."""
    view, pixels = _view("cls"), zoo.pixels("cls")
    states = literal.states(view.module, pixels)
    blocks: Any = view.module.blocks
    both = Point(blocks[0].drop_path1, end, more=(blocks[0].drop_path2,))
    changed: list[Tensor] = []

    def double(x: Tensor, part: slice) -> Tensor:
        assert part == slice(None)
        changed.append(x)
        return 2 * x

    with replacing(both, double):
        after = _seen(view, pixels, "attn_out", "mlp_out", "resid_post")
    (total,) = changed
    torch.testing.assert_close(total, states["attn_out"][0] + states["mlp_out"][0], rtol=0, atol=1e-12)
    assert torch.equal(after["attn_out"][0], states["attn_out"][0])
    torch.testing.assert_close(after["mlp_out"][0], 2 * total - states["attn_out"][0], rtol=0, atol=1e-12)
    torch.testing.assert_close(after["resid_post"][0], states["embed"][0] + 2 * total, rtol=0, atol=1e-12)


class _ByKeyword(nn.Module):
    """Calls a part of itself by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.part(input=x)  # type: ignore[no-any-return]


def test_inputs_that_are_given_by_keyword() -> None:
    module = _ByKeyword()
    point = Point(module.part, "input")
    view = _view("cls")
    view = replace(view, module=module, blocks=(replace(view.blocks[0], points={**view.blocks[0].points, "x": point}),))
    x = torch.randn(3, 2)
    with replacing(point, lambda x, _: x + 1), torch.no_grad():
        passed = _seen(view, x, "x")["x"]
        output = module(x)
    assert torch.equal(passed[0], x + 1)
    assert torch.equal(output, module.part(x + 1))


def test_the_output_of_a_whole_model() -> None:
    model, pixels = zoo.build("cls"), zoo.pixels("cls")
    before = zoo.snapshot(model)
    with torch.no_grad():
        logits = model(pixels)
        with pytest.raises(_Stop), replacing_output(model, lambda output: {"logits": output}):
            assert torch.equal(model(pixels)["logits"], logits)
            raise _Stop
    assert zoo.snapshot(model) == before
