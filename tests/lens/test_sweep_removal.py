"""Sweeps between whole images and the same without some tokens, against models that run on shorter sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import classlens
from classlens import KeepTokens
from tests import zoo
from tests.refusals import refused

Change = Callable[[Tensor], Tensor]
IMAGES = 3


def logits(vit: Any, x: Tensor, keep: Tensor | None = None, /, **at: Change) -> Tensor:
    """Logits of a module, which drops tokens before its first block and changes what enters other modules."""
    with ExitStack() as stack, torch.no_grad():
        changes = {name.replace("__", "."): change for name, change in at.items()}
        if keep is not None:
            changes["blocks.0"] = lambda x: x[:, keep]
        for name, change in changes.items():

            def hook(_: Any, inputs: tuple[Tensor, ...], change: Change = change) -> tuple[Tensor, ...]:
                return (change(inputs[0]), *inputs[1:])

            handle = vit.get_submodule(name).register_forward_pre_hook(hook)
            stack.callback(handle.remove)
        result: Tensor = vit(x)
    return result


def recorded(vit: Any, x: Tensor, name: str, keep: Tensor | None = None) -> Tensor:
    """The input of a module."""
    found: list[Tensor] = []

    def keep_it(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    logits(vit, x, keep, **{name: keep_it})
    return found[0]


def masks(name: str, count: int) -> Tensor:
    """Other tokens are kept of every image; prefix tokens of all."""
    prefix = len(zoo.VARIANTS[name].prefix)
    keep = torch.zeros(IMAGES, count, dtype=torch.bool)
    keep[:, :prefix] = True
    for image, places in enumerate([[0, 2], [1, 3], [3]]):
        keep[image, [prefix + place for place in places]] = True
    return keep


def replaced(columns: slice, values: Tensor, tokens: Sequence[int] | slice = slice(None)) -> Change:
    def change(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, tokens, columns] = values
        return x

    return change


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize("name", ["cls_registers", "avg"])
def test_heads(name: str, direction: Any) -> None:
    vit, x = zoo.build(name), zoo.pixels(name, IMAGES)
    lens = classlens.load(vit)
    keep = masks(name, lens.view.tokens(lens.view.input_size).count)
    result = lens.sweep(x, KeepTokens(keep), metric="logit", target=2, direction=direction, batch_size=2)
    assert result.corrupt_image.values.tolist() == ["tokens removed"] * IMAGES
    heads, width = result.sizes["head"], vit.embed_dim // result.sizes["head"]
    for image in range(IMAGES):
        kept = keep[image].nonzero()[:, 0]
        one = x[image : image + 1]
        assert float(result.clean[image]) == pytest.approx(float(logits(vit, one)[0, 2]), abs=1e-10)
        assert float(result.corrupt[image]) == pytest.approx(float(logits(vit, one, kept)[0, 2]), abs=1e-10)
        for block in range(result.sizes["block"]):
            place = f"blocks__{block}__attn__proj"
            whole, short = recorded(vit, one, place), recorded(vit, one, place, kept)
            for head in range(heads):
                columns = slice(head * width, (head + 1) * width)
                if direction == "denoise":
                    values = whole[:, kept][..., columns]
                    expected = logits(vit, one, kept, **{place: replaced(columns, values)})[0, 2]
                else:
                    change = replaced(columns, short[..., columns], kept.tolist())
                    expected = logits(vit, one, **{place: change})[0, 2]
                found = float(result.patched[image, block, head])
                assert found == pytest.approx(float(expected), abs=1e-9)


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_tokens(direction: Any) -> None:
    """A removed token has no effect; a kept one that of its state in the other run."""
    name = "cls_registers"
    vit, x = zoo.build(name), zoo.pixels(name, IMAGES)
    lens = classlens.load(vit)
    keep = masks(name, lens.view.tokens(lens.view.input_size).count)
    options: dict[str, Any] = {"metric": "logit", "target": 1, "blocks": [1, 2], "direction": direction}
    result = lens.sweep(x, KeepTokens(keep), "tokens", **options)
    for image in range(IMAGES):
        kept, one = keep[image].nonzero()[:, 0].tolist(), x[image : image + 1]
        for row, block in enumerate((1, 2)):
            place = f"blocks__{block}"
            whole, short = recorded(vit, one, place), recorded(vit, one, place, keep[image].nonzero()[:, 0])
            for token in range(keep.shape[1]):
                if token not in kept:
                    assert abs(float(result.effect[image, row, token])) < 1e-9
                    continue
                position = kept.index(token)
                if direction == "denoise":
                    change = replaced(slice(None), whole[:, token], [position])
                    expected = logits(vit, one, keep[image].nonzero()[:, 0], **{place: change})[0, 1]
                else:
                    expected = logits(vit, one, **{place: replaced(slice(None), short[:, position], [token])})[0, 1]
                assert float(result.patched[image, row, token]) == pytest.approx(float(expected), abs=1e-9)


def test_all_tokens_kept_and_one_mask_for_all() -> None:
    lens, x = classlens.load(zoo.build("cls")), zoo.pixels("cls", 2)
    every = lens.sweep(x, KeepTokens(torch.ones(5, dtype=torch.bool)), "sublayers", metric="logit", target=0)
    np.testing.assert_allclose(every.patched, every.clean.values[:, None, None] + np.zeros((2, 3, 2)), atol=1e-10)
    mask = torch.tensor([True, True, False, True, False])
    one = lens.sweep(x, KeepTokens(mask), "units", metric="logit", target=0, blocks=1, parts=[0, 3])
    each = lens.sweep(x, KeepTokens(mask.expand(2, 5)), "units", metric="logit", target=0, blocks=1, parts=[0, 3])
    assert one.equals(each)


@pytest.mark.wrong_types
def test_refusals() -> None:
    lens, x = classlens.load(zoo.build("cls")), zoo.pixels("cls", 2)
    refused(lambda: lens.sweep(x, KeepTokens(torch.ones(4, dtype=torch.bool))), "a mask of shape [4]", "5 tokens")
    wrong = torch.ones(3, 5, dtype=torch.bool)
    refused(lambda: lens.sweep(x, KeepTokens(wrong)), "tokens of 3 images were given, but 2 run at once")
    none = torch.tensor([False, True, True, True, True])
    some = KeepTokens(torch.arange(5) != 3)
    refused(lambda: lens.sweep(x, some, approximate=True), "with KeepTokens", "leave approximate out")
    refused(lambda: lens.sweep(x, KeepTokens(none)), "logits are not finite for its corrupt image 'image 0'")
