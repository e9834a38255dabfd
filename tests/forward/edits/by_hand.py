"""A plain timm ViT written out, in which a test makes the change of an edit itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import classlens
from classlens import ClasslensError, Edit, Lens
from tests import zoo

Change = Callable[[int, Tensor], Tensor]
"""From a block and what passes there to what goes on."""


def unchanged(_: int, x: Tensor) -> Tensor:
    return x


@torch.no_grad()
def by_hand(
    model: Any,
    pixels: Tensor,
    weights: Change = unchanged,
    heads: Change = unchanged,
    hidden: Change = unchanged,
    mlp: Change = unchanged,
) -> Tensor:
    """Logits; attention is written out, and the functions change what passes."""
    x = model._pos_embed(model.patch_embed(pixels))
    for number, block in enumerate(model.blocks):
        attn = block.attn
        q, k, v = attn.qkv(block.norm1(x)).unflatten(-1, (3, attn.num_heads, attn.head_dim)).permute(2, 0, 3, 1, 4)
        a = weights(number, ((q @ k.transpose(-2, -1)) / attn.head_dim**0.5).softmax(dim=-1))
        x = x + block.ls1(attn.proj(heads(number, a @ v).transpose(1, 2).flatten(2)))
        units = hidden(number, block.mlp.act(block.mlp.fc1(block.norm2(x))))
        x = x + mlp(number, block.ls2(block.mlp.fc2(units)))
    logits: Tensor = model.forward_head(model.norm(x))
    return logits


def model() -> Any:
    return zoo.build("cls_layer_scale")


def pixels(images: int = 3, *, seed: int = 1) -> Tensor:
    return zoo.pixels("cls_layer_scale", images, seed=seed)


def edited(model: Any, x: Tensor, *edits: Edit) -> Tensor:
    lens = classlens.load(model)
    with lens.edit(*edits), torch.no_grad():
        logits: Tensor = model(x)
    return logits


def close(logits: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-11)


def refusal(edit: Any, lens: Lens, x: Tensor, *, entered: bool) -> str:
    """The message of an edit that cannot be made or applied, or when the model runs; no trace is left."""
    before = zoo.snapshot(lens.view.module)
    inside = False
    with pytest.raises(ClasslensError) as caught, lens.edit(edit() if callable(edit) else edit), torch.no_grad():
        inside = True
        lens.view.run(x)
    assert inside == entered
    message = str(caught.value)
    assert "\n" not in message
    assert ". " not in message, "one sentence"
    assert zoo.snapshot(lens.view.module) == before
    return message


def refused(edit: Any, message: str, *, entered: bool = False, variant: str = "cls", images: int = 3) -> None:
    """A tiny model refuses an edit with a message that contains this."""
    assert message in refusal(edit, classlens.load(zoo.build(variant)), zoo.pixels(variant, images), entered=entered)
