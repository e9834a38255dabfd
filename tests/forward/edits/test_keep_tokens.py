"""Kept tokens against sequences from which the others are really gone, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import classlens
from classlens import KeepTokens
from tests import zoo
from tests.forward.edits.by_hand import close, edited, model, pixels, refused


@pytest.mark.parametrize("name", ["cls_layer_scale", "avg_excludes_cls", "avg_norm_before_pool", "avg_includes_prefix"])
def test_kept_tokens_are_what_dropping_the_others_gives(name: str) -> None:
    vit, x = zoo.build(name), zoo.pixels(name)
    prefix = len(zoo.VARIANTS[name].prefix)
    kept = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 1], [1, 1, 1, 1]]).bool()
    mask = torch.cat([torch.ones(3, prefix, dtype=torch.bool), kept], dim=1)
    logits = edited(vit, x, KeepTokens(mask))
    for image in range(3):
        with torch.no_grad():
            tokens = vit._pos_embed(vit.patch_embed(x[image : image + 1]))[:, mask[image]]
            for block in vit.blocks:
                tokens = block(tokens)
            close(logits[image : image + 1], vit.forward_head(vit.norm(tokens)))


def test_facts_of_kept_tokens() -> None:
    """What is measured within the context is edited as well."""
    vit, x = model(), pixels()
    lens = classlens.load(vit)
    mask = torch.tensor([True, False, True, True, False])
    with lens.edit(KeepTokens(mask)):
        facts = lens.facts(x, "resid_post", 3)
    with torch.no_grad():
        tokens = vit._pos_embed(vit.patch_embed(x))[:, mask]
        for number, block in enumerate(vit.blocks):
            tokens = block(tokens)
            logits = vit.head(vit.fc_norm(vit.norm(tokens)))[..., 3]
            torch.testing.assert_close(torch.as_tensor(facts["logit"].values[:, 0, number][:, mask]), logits)


def test_an_image_that_keeps_no_pooled_token_has_no_logits() -> None:
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[1, 1:] = False
    vit, x = zoo.build("avg_excludes_cls"), zoo.pixels("avg_excludes_cls")
    logits = edited(vit, x, KeepTokens(mask))
    assert torch.isnan(logits).all(dim=1).tolist() == [False, True, False]
    with torch.no_grad():
        torch.testing.assert_close(logits[[0, 2]], vit(x)[[0, 2]], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.tensor([1, 0, 1, 1, 1]), "mask of type Tensor, [5], torch.int64 cannot be used: give a bool mask"),
        (np.array([1, 0, 1, 1, 1]), "mask of type ndarray, [5], int64 cannot be used: give a bool mask"),
        (np.array([None] * 5), "mask of type ndarray, [5], object cannot be used: give a bool mask"),
        ([True] * 5, "mask [True, True, True, True, True] cannot be used: give a bool mask [token] or [image, token]"),
        ("image", "mask 'image' cannot be used: give a bool mask"),
        (torch.ones(6, dtype=torch.bool), "a mask of shape [6] was given for 5 tokens"),
        (np.ones(6, dtype=bool), "a mask of shape [6] was given for 5 tokens"),
        (torch.tensor(True), "a mask of shape [] was given for 5 tokens"),
    ],
)
@pytest.mark.wrong_types
def test_no_mask(mask: Any, message: str) -> None:
    refused(lambda: KeepTokens(mask), message)


def test_a_mask_of_other_images() -> None:
    for mask in (torch.ones(2, 5, dtype=torch.bool), np.ones((2, 5), dtype=bool)):
        refused(KeepTokens(mask), "tokens of 2 images were given, but 3 run at once", entered=True)
