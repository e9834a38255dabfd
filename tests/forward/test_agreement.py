"""Key-value agreement while the model runs, against its definition in loops over tokens, units and classes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import classlens
from classlens.forward.agreement import BY, SUBLAYERS, Agreement, AgreementRequest, MemoryTables, Sublayer
from classlens.forward.streaming import reduce_tokens
from tests import literal, zoo


def five_largest(values: Tensor) -> set[int]:
    return set(sorted(range(len(values)), key=lambda index: -float(values[index]))[:5])


@torch.no_grad()
def coefficients(block: Any, x: Tensor, sublayer: Sublayer) -> Tensor:
    """Of a timm block that is not post-norm: joined heads, or hidden units after the activation."""
    if sublayer == "attn":
        weights, values = literal.attention_parts(block, x)
        return (weights @ values).transpose(1, 2).flatten(2)
    middle = x + block.ls1(block.attn(block.norm1(x)))
    units: Tensor = block.mlp.act(block.mlp.fc1(block.norm2(middle)))
    return units


@pytest.mark.parametrize("name", ["cls_layer_scale", "avg_two_norms"])
def test_agreement_is_what_its_definition_says(name: str) -> None:
    model, pixels, target = zoo.build(name), zoo.pixels(name), zoo.targets()
    control = (target + 3) % zoo.CLASSES
    view = classlens.load(model).view
    passed: dict[tuple[Sublayer, int], Agreement] = {}

    def receive(sublayer: Sublayer, block: int, tokens: Tensor | slice, agreement: Agreement) -> None:
        assert tokens == slice(None)
        passed[sublayer, block] = agreement

    request = AgreementRequest(MemoryTables(view), control, receive)
    sites: list[str] = []
    before = zoo.snapshot(model)
    wanted = ("attn_out", "mlp_out", "resid_post")
    reduce_tokens(view, pixels, target, wanted, lambda site, *_: sites.append(site), agreement=request)
    assert zoo.snapshot(model) == before
    assert sites == [*wanted] * 3
    assert list(passed) == [(sublayer, block) for block in range(3) for sublayer in SUBLAYERS]
    states = literal.states(model, pixels)
    embedding = model.head.weight.detach()
    for (sublayer, block), agreement in passed.items():
        assert tuple(agreement.by) == BY
        module: Any = model.blocks[block]
        weight = (module.attn.proj if sublayer == "attn" else module.mlp.fc2).weight.detach()
        scale = module.ls1 if sublayer == "attn" else module.ls2
        scores = (embedding @ scale(weight.T).T).detach()  # [class, unit]
        x = coefficients(module, states["resid_pre"][block], sublayer)
        with torch.no_grad():
            top1 = literal.class_logits(model, states[f"{sublayer}_out"][block]).argmax(dim=-1)
        row = 0
        for image in range(len(pixels)):
            own, other = int(target[image]), int(control[image])
            for token in range(x.shape[1]):
                units = five_largest(x[image, token])
                classes = [five_largest(scores[:, unit]) for unit in units]
                best = {int(scores[:, unit].argmax()) for unit in units}
                assert bool(agreement.by["class"][row]) == bool(units & five_largest(scores[own]))
                assert bool(agreement.by["random_class"][row]) == bool(units & five_largest(scores[other]))
                assert bool(agreement.by["value"][row]) == any(own in each for each in classes)
                assert bool(agreement.match[row]) == (int(top1[image, token]) in best)
                row += 1
        assert row == len(agreement.match)
