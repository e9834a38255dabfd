"""The value projection of every family, against the values of a pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import classlens
from classlens.forward.value_weights import value_weights
from classlens.models.view import Point
from tests import zoo
from tests.forward.models import view_of
from tests.models.library_models import CASES
from tests.refusals import refused


@pytest.mark.parametrize("name", CASES)
def test_values_are_linear_in_what_comes_in(name: str) -> None:
    """The difference of the values of two tokens of a pass comes from the difference of the tokens."""
    torch.manual_seed(0)
    tiny = CASES[name]
    lens = classlens.load(tiny.make())
    number = len(lens.view.blocks) - 1
    block = lens.view.blocks[number]
    point = block.points["values"]
    inputs: list[Tensor] = []
    modules = (point.module, *point.more)
    handles = [
        module.register_forward_pre_hook(
            lambda _, args, kwargs: inputs.append([*args, *kwargs.values()][0]), with_kwargs=True
        )
        for module in modules
    ]
    values = lens.trace(tiny.pixels()).recording.activation("values", number)
    for handle in handles:
        handle.remove()
    weights = value_weights(lens.view, number)
    assert weights.shape == (block.heads, values.shape[-1], block.attn.weight.shape[0])
    shares = weights.split(block.heads // len(modules))
    products = []
    for x, share in zip(inputs[-len(modules) :], shares, strict=True):
        tokens = x if len(x) == len(values) else x.transpose(0, 1)
        products.append(torch.einsum("itw,hcw->ihtc", tokens, share))
    expected, product = values - values[:, :, :1], torch.cat(products, dim=1)
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(product - product[:, :, :1], expected, rtol=0, atol=1e-10)


def test_half_precision_and_the_weights_themselves() -> None:
    model: Any = zoo.build("cls", torch.bfloat16)
    weights = value_weights(classlens.load(model).view, 1)
    expected = model.blocks[1].attn.qkv.weight.detach()[48:].float().unflatten(0, (3, 8))
    assert weights.dtype == torch.float32
    # The bias of order 1 is added in 8 bits, and subtracted again.
    torch.testing.assert_close(weights, expected, rtol=0, atol=2**-6)


class _Curved(nn.Module):
    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        return y + 0.1 * y**2


@pytest.mark.parametrize(
    "change",
    [
        lambda point: replace(point, module=_Curved(point.module)),
        lambda point: replace(point, read=lambda qkv: qkv[..., :24]),
        lambda point: replace(point, read=lambda _: None),
        lambda point: replace(point, module=nn.Linear(5, 72)),
    ],
)
def test_other_values_are_refused(change: Any) -> None:
    view = view_of("timm cls_registers")
    points: dict[str, Point] = {**view.blocks[1].points, "values": change(view.blocks[1].points["values"])}
    blocks = (view.blocks[0], replace(view.blocks[1], points=points), *view.blocks[2:])
    refused(lambda: value_weights(replace(view, blocks=blocks), 1), "values of block 1", "no linear map")
