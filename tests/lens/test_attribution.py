"""The strongest units: by hand on the frozen model, and against attribution."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import classlens
from classlens import AblateSublayer, KeepTokens, NoCls
from classlens.explain import strongest_units
from classlens.lens.trace import Trace
from classlens.models.view import BlockView
from tests import literal, zoo
from tests.forward.models import view_of
from tests.refusals import refused

RIVAL = torch.tensor([3, 9, 0])


def trace_of(name: str) -> Trace:
    return classlens.load(zoo.build(name)).trace(zoo.pixels(name))


def coefficients(model: Any, pixels: Tensor, sublayer: str, pooled: tuple[int, ...]) -> Tensor:
    """The input of each last projection, averaged over the pooled tokens: ``[image, block, unit]``."""
    kept: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        kept.append(inputs[0][:, list(pooled)].mean(dim=1))

    layers = [block.attn.proj if sublayer == "attn" else block.mlp.fc2 for block in model.blocks]
    handles = [layer.register_forward_pre_hook(keep) for layer in layers]
    with torch.no_grad():
        model(pixels)
    for handle in handles:
        handle.remove()
    return torch.stack(kept, dim=1)


@pytest.mark.parametrize("sublayer", ["attn", "mlp"])
@pytest.mark.parametrize("name", zoo.KINDS)
def test_the_strongest_units_are_those_of_the_frozen_model(
    name: str, sublayer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All units sorted by hand, for the difference of two classes, one image a pass."""
    model, pixels, pooled = zoo.build(name), zoo.pixels(name), zoo.VARIANTS[name].pooled
    trace = trace_of(name)
    monkeypatch.setattr(strongest_units, "_NUMBERS", 1)
    twins = [literal.units(model, pixels, target, pooled=pooled) for target in (zoo.targets(), RIVAL)]
    expected = {part: value - twins[1][part] for part, value in twins[0].items()}
    by_hand = coefficients(model, pixels, sublayer, pooled)
    units = trace.units(zoo.targets(), sublayer=sublayer, top=7, against=RIVAL)
    values = expected[sublayer].flatten(1).numpy()
    scale = getattr(model.blocks[0], "ls1" if sublayer == "attn" else "ls2", None)
    for image in range(3):
        order = np.argsort(-np.abs(values[image]), kind="stable")[:7]  # a target that is its own rival: all are 0
        block, unit = np.divmod(order, expected[sublayer].shape[2])
        assert units.unit_block[image].values.tolist() == block.tolist()
        assert units.unit[image].values.tolist() == unit.tolist()
        np.testing.assert_allclose(units.contribution[image], values[image, order], rtol=0, atol=1e-10)
        np.testing.assert_allclose(units.coefficient[image], by_hand[image, block, unit], rtol=0, atol=1e-10)
        outside = np.delete(values[image], order)
        np.testing.assert_allclose(units.rest[image].sum(), outside.sum(), rtol=0, atol=1e-10)
        for number in range(3):
            listed = values[image, order][block == number].sum()
            total = expected[sublayer][image, number].sum()
            np.testing.assert_allclose(units.rest[image, number], total - listed, rtol=0, atol=1e-10)
        for rank in range(7):
            chosen: Any = model.blocks[block[rank]]
            column = (chosen.attn.proj if sublayer == "attn" else chosen.mlp.fc2).weight[:, unit[rank]]
            if isinstance(scale, nn.Module) and hasattr(scale, "gamma"):
                column = column * (chosen.ls1 if sublayer == "attn" else chosen.ls2).gamma
            assert int(units.value_class[image, rank]) == int((model.head.weight @ column).argmax())
    np.testing.assert_allclose(units.bias, expected[f"{sublayer}_bias"], rtol=0, atol=1e-10)
    total = expected[sublayer].sum(dim=2) + expected[f"{sublayer}_bias"]
    np.testing.assert_allclose(units.sublayer_contribution, total, rtol=0, atol=1e-10)
    assert units.against.values.tolist() == RIVAL.tolist()


def test_one_block_and_all_of_its_units() -> None:
    trace = trace_of("cls_registers")
    parts, units = trace.attribution(4), trace.units(4, block=1, top=1000)
    assert dict(units.sizes) == {"image": 3, "rank": 48, "block": 1}
    assert units.block.values.tolist() == [1]
    assert set(units.unit_block.values.flat) == {1}
    assert all(sorted(row) == list(range(48)) for row in units.unit.values.tolist())
    assert not units.rest.any()
    np.testing.assert_allclose(units.contribution.sum("rank"), parts.mlp.sel(block=1), rtol=0, atol=1e-10)
    attn = trace.units(4, sublayer="attn", block=1, top=24)
    heads = [
        [float(attn.contribution[image].values[attn.unit[image] // 8 == head].sum()) for head in range(3)]
        for image in range(3)
    ]
    np.testing.assert_allclose(heads, parts.attention.sel(block=1), rtol=0, atol=1e-10)


def test_coefficients_of_dropped_tokens_do_not_count() -> None:
    """Only tokens that the head pools count among averaged ones."""
    name = "avg_excludes_cls"
    lens = classlens.load(zoo.build(name))
    kept = np.array([True, True, False, True, True])
    with lens.edit(KeepTokens(kept)):
        trace = lens.trace(zoo.pixels(name))
        units = trace.units(1, block=2, top=48)
        passed: list[Tensor] = []
        model: Any = lens.view.module
        handle = model.blocks[2].mlp.fc2.register_forward_pre_hook(lambda _, inputs: passed.append(inputs[0]))
        with torch.no_grad():
            model(zoo.pixels(name))
        handle.remove()
    mean = passed[0][:, [1, 3, 4]].mean(dim=1)
    expected = mean.gather(1, torch.from_numpy(units.unit.values))
    np.testing.assert_allclose(units.coefficient, expected, rtol=0, atol=1e-10)


def test_other_passes_are_refused() -> None:
    lens = classlens.load(view_of("timm cls_registers"))
    model: Any = lens.view.module
    pixels = zoo.pixels("cls_registers")
    trace = lens.trace(pixels)
    with lens.edit(AblateSublayer("mlp", blocks=[0])):
        refused(lambda: trace.units(), "these images ran with no edits")
        edited = lens.trace(pixels)
        assert not edited.units(block=0, top=48).contribution.any()
    refused(lambda: edited.units(), "these images ran with AblateSublayer", "within the same lens.edit")
    handle = model.blocks[1].mlp.fc2.register_forward_hook(lambda *args: 1.5 * args[2])
    refused(lambda: trace.units(), "other logits than when they were traced")
    handle.remove()
    refused(lambda: trace.units(block=3), "block", "from 0 to 2")
    with torch.no_grad():
        model.blocks[0].mlp.fc2.weight.mul_(1.5)
    refused(lambda: trace.units(), "the weights of model", "trace the images again")


def test_what_changes_an_mlp_after_its_units_is_refused() -> None:
    lens = classlens.load(view_of("timm cls_registers"))
    model: Any = lens.view.module
    with lens.edit(NoCls()):  # the laws were measured before
        model.blocks[1].mlp.fc2.register_forward_hook(lambda *args: 1.1 * args[2])
        trace = lens.trace(zoo.pixels("cls_registers"))
        refused(lambda: trace.units(2), "hidden units of block 1", "its MLP adds", "leave out the hook")
        assert trace.units(2, sublayer="attn").sizes["rank"] == 20


def test_a_description_without_coefficients_is_refused() -> None:
    view = view_of("timm cls_registers")
    blocks: list[BlockView] = list(view.blocks)
    points = {name: point for name, point in blocks[1].points.items() if name != "mlp_coefficients"}
    blocks[1] = replace(blocks[1], points=points)
    trace = classlens.load(replace(view, blocks=tuple(blocks))).trace(zoo.pixels("cls_registers"))
    refused(lambda: trace.units(), "block 1", "no point 'mlp_coefficients'")
    assert trace.units(block=0).sizes["rank"] == 20
