"""Attention of a trace against that of each library: timm's extractor, eager attention, torch's own weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.utils.attention_extract import AttentionExtract
from torch import Tensor, nn

import classlens
from tests.models.library_models import CASES


def of_timm(model: Any, pixels: Tensor) -> list[Tensor]:
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    extract = AttentionExtract(model, names=["blocks.*attn_drop"], method="hook")
    weights: list[Tensor] = list(extract(pixels).values())
    branches = len(weights) // len(model.blocks)
    return [torch.cat(weights[start : start + branches], dim=1) for start in range(0, len(weights), branches)]


def of_transformers(model: Any, pixels: Tensor) -> list[Tensor]:
    model.set_attn_implementation("eager")
    return list(model(pixels, output_attentions=True, return_dict=True).attentions)


def of_torch(model: Any, pixels: Tensor) -> list[Tensor]:
    weights: list[Tensor] = []

    def ask(module: nn.MultiheadAttention, args: tuple[Tensor, ...], kwargs: dict[str, Any], _: Any) -> None:
        x = args[0] if args else kwargs["query"]
        weights.append(nn.MultiheadAttention.forward(module, x, x, x, average_attn_weights=False)[1])  # type: ignore[arg-type]

    for module in model.modules():  # the text tower does not run
        if isinstance(module, nn.MultiheadAttention):
            module.register_forward_hook(ask, with_kwargs=True)
    model(pixels)
    return weights


ORACLES: dict[str, Callable[[Any, Tensor], list[Tensor]]] = {
    "timm": of_timm,
    "transformers": of_transformers,
    "torchvision": of_torch,
    "open_clip": of_torch,
}


@pytest.mark.parametrize("name", CASES)
def test_attention_is_the_library_s_own(name: str) -> None:
    torch.manual_seed(0)
    tiny = CASES[name]
    module, pixels = tiny.make(), tiny.pixels()
    found = classlens.load(module).trace(pixels).attention(queries="all")
    assert found.dims == ("image", "block", "head", "query", "token")
    with torch.no_grad():
        expected = torch.stack(ORACLES[tiny.library](module, pixels), dim=1)
    torch.testing.assert_close(torch.from_numpy(found.values), expected.to(torch.float64), rtol=0, atol=1e-6)
