"""Every law, measured: on models that are read right, and on models that break one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import classlens
from classlens.lens.verify import Law, verify
from classlens.models import timm as timm_family
from tests import zoo

LAWS = ("residual stream", "class space", "attribution", "no trace", "attention rows", "fused attention", "memories")


def laws_of(model: Any) -> dict[str, Law]:
    laws = {law.name: law for law in verify(timm_family.describe(model, "model"))}
    assert set(laws) == set(LAWS)
    return {str(name): law for name, law in laws.items()}


@pytest.mark.parametrize("name", zoo.VARIANTS)
def test_every_law_holds(name: str) -> None:
    """In float64 up to rounding, and in one of the other precisions within its own tolerance."""
    exact = laws_of(zoo.build(name))
    assert all(law.holds and law.error is not None and law.error < 1e-11 for law in exact.values())
    dtype = (torch.float32, torch.bfloat16)[list(zoo.VARIANTS).index(name) % 2]
    assert [law for law in laws_of(zoo.build(name, dtype)).values() if not law.holds] == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", zoo.KINDS)
def test_every_law_holds_for_each_kind_of_head(name: str, dtype: torch.dtype) -> None:
    assert [law for law in laws_of(zoo.build(name, dtype)).values() if not law.holds] == []


def test_a_real_model() -> None:
    lens = classlens.load("builtin:cifar10")
    pixels = torch.randn(3, 3, 32, 32)
    assert all(law.holds and law.error is not None for law in verify(lens.view, pixels))


def hook_on_the_projection(model: Any) -> None:
    """What is added is what is projected, so that laws 1 and 2 hold; the heads no longer sum to it."""
    model.blocks[1].attn.proj.register_forward_hook(lambda _, __, output: output * 1.1)


def hook_on_the_block(model: Any) -> None:
    model.blocks[1].register_forward_hook(lambda _, __, output: output + 0.1)


def softmax_at_the_end(model: Any) -> None:
    model.head.register_forward_hook(lambda _, __, output: output.softmax(dim=-1))


def weights_that_do_not_sum_to_one(model: Any) -> None:
    model.blocks[2].attn.attn_drop.register_forward_hook(lambda _, __, output: output * 1.01)


def a_flag_that_is_not_put_back(model: Any) -> None:
    model.blocks[0].norm1.register_forward_hook(lambda module, __, ___: setattr(module, "calls", 1))


BROKEN: dict[str, tuple[Callable[[Any], None], set[str]]] = {
    "attention's projection": (hook_on_the_projection, {"attribution", "memories"}),
    "a block": (hook_on_the_block, {"residual stream"}),
    "logits": (softmax_at_the_end, {"class space", "attribution"}),
    "attention weights": (weights_that_do_not_sum_to_one, {"attention rows", "fused attention"}),
    "a flag": (a_flag_that_is_not_put_back, {"no trace"}),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_law_is_found(what: str) -> None:
    spoil, broken = BROKEN[what]
    model = zoo.build("cls")
    spoil(model)
    assert {name for name, law in laws_of(model).items() if not law.holds} >= broken


def test_only_what_is_broken_is_found() -> None:
    model = zoo.build("cls")
    hook_on_the_projection(model)
    assert {name for name, law in laws_of(model).items() if not law.holds} == {"attribution", "memories"}


def test_nothing_is_left_behind() -> None:
    model: Any = zoo.build("cls").train()
    before = zoo.snapshot(model)
    verify(timm_family.describe(model, "model"))
    assert zoo.snapshot(model) == before
