"""Sequences from which tokens are gone: against a pass in loops without them, and in every library against edits."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

import classlens
from classlens import KeepTokens
from classlens.forward.edits.edit import editing
from classlens.forward.hooks import watching
from classlens.forward.run import run
from classlens.forward.token_subsets import TokenSubsets
from classlens.models.view import ModelView
from tests import zoo
from tests.forward.models import IMPLEMENTATIONS, POOLINGS, POSITIONAL, pixels_of, view_of
from tests.forward.slow import Changes, slow


def rows_of(count: int, prefix: int, rows: int, kept: int) -> Tensor:
    """Prefix tokens and some image tokens of each row, in order."""
    generator = torch.Generator().manual_seed(kept)
    drawn = [torch.randperm(count - prefix, generator=generator)[:kept].sort().values + prefix for _ in range(rows)]
    return torch.cat([torch.arange(prefix).expand(rows, -1), torch.stack(drawn)], dim=1)


def among(tokens: set[int], image: int, token: int) -> bool:
    return token in tokens


@pytest.mark.parametrize("name", ["cls_registers", "cls_layer_scale", "cls_rms_post_norm", "avg", "avg_two_norms"])
@pytest.mark.parametrize("kept", [1, 3])
def test_tokens_that_are_gone_are_gone(name: str, kept: int) -> None:
    model = zoo.build(name)
    view = classlens.load(model).view
    pixels = zoo.pixels(name)
    prefix = len(zoo.VARIANTS[name].prefix) or (0 if "class_token" in zoo.VARIANTS[name].options else 1)
    short = TokenSubsets(view, pixels)
    assert short.shortens
    image = torch.tensor([2, 0, 0, 1])
    rows = rows_of(short.count, prefix, 4, kept)
    found = short.logits(image, rows)
    for number in range(4):
        own = set(rows[number].tolist())
        whole = slow(name, model, pixels[image[number]][None], Changes(kept=partial(among, own)))
        torch.testing.assert_close(found[number], whole.logits[0], rtol=0, atol=1e-10)
    snapshot = zoo.snapshot(model)
    short.logits(image, rows)
    assert zoo.snapshot(model) == snapshot  # law 4


@pytest.mark.parametrize("name", [*IMPLEMENTATIONS, *POOLINGS])
def test_every_library_against_edits(name: str) -> None:
    view = view_of(name)
    pixels = pixels_of(view, 3, seed=5)
    short = TokenSubsets(view, pixels)
    assert short.shortens == (name not in POSITIONAL)
    image = torch.tensor([1, 1, 2])
    rows = rows_of(short.count, len(view.prefix), 3, 2)
    mask = torch.zeros(3, short.count, dtype=torch.bool).scatter_(1, rows, True)
    with editing(view, [KeepTokens(mask)]):
        expected = run(view, pixels[image])
    torch.testing.assert_close(short.logits(image, rows), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("arch", ["eva02_tiny_patch14_224", "vit_relpos_small_patch16_224", "beit_base_patch16_224"])
def test_attention_that_knows_positions_runs_whole(arch: str) -> None:
    small: dict[str, Any] = {"img_size": 28 if "14" in arch else 32, "depth": 2, "embed_dim": 24, "num_heads": 2}
    model = timm.create_model(arch, pretrained=False, num_classes=5, **small).eval()
    view = classlens.load(model).view
    short = TokenSubsets(view, torch.rand(2, 3, *view.input_size))
    assert not short.shortens
    rows = rows_of(short.count, len(view.prefix), 1, 2)
    assert short.logits(torch.tensor([0]), rows).shape == (1, 5)


def test_blocks_see_the_kept_tokens_alone_and_pixels_are_embedded_once() -> None:
    view = classlens.load("builtin:cifar10").view
    pixels = torch.rand(5, 3, 32, 32)
    seen: list[tuple[int, ...]] = []
    embedded: list[int] = []
    first: Any = next(part for part in view.module.modules() if isinstance(part, torch.nn.Conv2d))
    handle = first.register_forward_hook(lambda _, __, output: embedded.append(len(output)))
    short = TokenSubsets(view, pixels, shorten=True)
    with watching(view, {"resid_pre": lambda _, x: seen.append(tuple(x.shape[:2]))}):
        short.logits(torch.tensor([4, 3, 2, 1, 0, 4]), rows_of(65, 1, 6, 7))
    handle.remove()
    assert seen[1:] == [(6, 8)] * (len(view.blocks) - 1)
    assert embedded == [5, 1]


def test_a_model_that_disagrees_is_noticed() -> None:
    """Shorter sequences run, but are not what dropping tokens means: blocks that look at how many there are."""
    model: Any = zoo.build("cls")
    model.blocks[1].register_forward_hook(lambda _, __, output: output * output.shape[1] / 5)
    view = classlens.load(model).view
    assert not TokenSubsets(view, zoo.pixels("cls")).shortens


def test_a_first_block_that_never_runs() -> None:
    model = zoo.build("cls")
    view = classlens.load(model).view
    other = classlens.load(zoo.build("cls")).view
    pretended = ModelView(**{**vars(view), "blocks": other.blocks})
    with pytest.raises(classlens.ClasslensError, match="resid_pre of block 0 passed 0 times"):
        TokenSubsets(pretended, zoo.pixels("cls"))
