"""Activations of another image, put in by hand, in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import classlens
from classlens import Patch
from classlens.forward.edits.patch import PATCH_SITES
from tests import zoo
from tests.forward.edits.by_hand import by_hand, close, edited, model, pixels, refused


@pytest.mark.parametrize("site", ["embed", "resid_pre", "attn_out", "mlp_out", "resid_post"])
def test_a_patch_from_the_own_image_changes_nothing(site: Any) -> None:
    vit, x = model(), pixels()
    with torch.no_grad():
        close(edited(vit, x, Patch(site, source=x, tokens=[1, 2])), vit(x))


def test_patches() -> None:
    vit, x = model(), pixels()
    other = pixels(1, seed=5)
    with torch.no_grad():
        expected = vit(other).expand(3, -1)
    for patch in (
        Patch("resid_post", source=other, blocks=2),
        Patch("resid_pre", source=other, blocks=1),
        Patch("resid_pre", source=other, blocks=0),
        Patch("embed", source=other),
        Patch("embed", source=other, blocks=2),
    ):
        close(edited(vit, x, patch), expected)


def test_patched_heads() -> None:
    vit, x = model(), pixels()
    other = pixels(1, seed=5)
    source: dict[int, Tensor] = {}
    by_hand(vit, other, heads=lambda number, y: source.setdefault(number, y))

    def patched(number: int, y: Tensor) -> Tensor:
        y = y.clone()
        if number == 1:
            y[:, 2, [0, 4]] = source[1][:, 2, [0, 4]]
        return y

    patch = Patch("heads", source=other, blocks=1, heads=[2], tokens=[0, 4])
    close(edited(vit, x, patch), by_hand(vit, x, heads=patched))
    every = Patch("heads", source=other, blocks=1, heads="all")
    close(edited(vit, x, every), by_hand(vit, x, heads=lambda number, y: source[1].expand_as(y) if number == 1 else y))


def test_a_patched_stream_still_adds_up() -> None:
    vit, x = model(), pixels()
    lens = classlens.load(vit)
    other = pixels(1, seed=5)
    with lens.edit(Patch("resid_post", source=other, blocks=1, tokens="image")):
        assert lens.check(x).law1 < 1e-12
        states = lens.trace(x).recording.state("resid_post", 1, slice(None))
    source = lens.trace(other).recording.state("resid_post", 1, slice(None))
    torch.testing.assert_close(states[:, 1:], source[:, 1:].expand(3, -1, -1), rtol=0, atol=1e-12)


def test_the_source_runs_once() -> None:
    vit, runs = model(), []
    handle = vit.register_forward_pre_hook(lambda _, args: runs.append(len(args[0])))
    lens = classlens.load(vit)
    runs.clear()
    with lens.edit(Patch("resid_post", pixels(2), tokens="image")):
        assert runs == [2]
    handle.remove()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("cat.png", "source 'cat.png' cannot be used: give a tensor or an array"),
        (Path("cat.png"), "cat.png') cannot be used: give a tensor or an array"),
        (None, "source None cannot be used"),
        ([[0.0]], "source [[0.0]] cannot be used"),
        (np.array("cat.png"), "source array('cat.png', dtype='<U7') cannot be used: give a tensor"),
        (torch.zeros(3, 16, 16), "a tensor of shape [3, 16, 16] was given as the source of a patch"),
        (np.zeros((3, 16, 16)), "a tensor of shape [3, 16, 16] was given as the source of a patch"),
        (torch.zeros(0, 3, 16, 16), "a tensor of shape [0, 3, 16, 16] was given as the source of a patch"),
        (torch.zeros(1, 1, 16, 16), "give preprocessed pixels [image, 3, height, width]"),
        (np.zeros((1, 3, 16, 16), dtype=np.uint8), "a tensor of type torch.uint8 was given as the source of a patch"),
        (torch.zeros(1, 3, 24, 16), "pixels are 24×16"),
    ],
)
@pytest.mark.parametrize("site", ["resid_post", "heads"])
@pytest.mark.wrong_types
def test_no_source(site: Any, source: Any, message: str) -> None:
    refused(lambda: Patch(site, source, heads=[0] if site == "heads" else None), message)


@pytest.mark.parametrize("site", PATCH_SITES)
def test_a_source_of_another_number_of_images(site: Any) -> None:
    heads = [0] if site == "heads" else None
    message = "the source of a patch has 2 images of 5 tokens, but 3 of 5 run at once"
    refused(Patch(site, torch.zeros(2, 3, 16, 16), heads=heads), message, entered=True)
    refused(Patch(site, zoo.pixels("cls"), heads=heads), "has 3 images", entered=True, images=1)


def test_a_source_of_another_size() -> None:
    patch = Patch("mlp_out", torch.zeros(1, 3, 16, 16))
    refused(patch, "has 1 images of 5 tokens, but 3 of 9 run at once", entered=True, variant="cls_dynamic")


def test_unknown_sites() -> None:
    x = torch.zeros(1, 3, 16, 16)
    unknown: Any = "attn_in"
    refused(lambda: Patch(unknown, x), "site 'attn_in' is not known; did you mean 'attn_out'?")
    other: Any = "logits"
    refused(lambda: Patch(other, x), "give one of embed, resid_pre, attn_out, mlp_out, resid_post, heads")
    refused(Patch("heads", x), "give both or neither")
    refused(Patch("mlp_out", x, heads=[0]), "give both or neither")
