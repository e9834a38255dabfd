"""Particulars of timm: names, and the nearest supported model for an unsupported one. The rest is in the contract."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

import classlens
from classlens.errors import ClasslensError
from tests.models.tiny_timm import FAMILIES, SIZE_32, SMALL
from tests.refusals import refused
from tests.zoo import randomize


def test_a_refusal_names_the_model_as_the_user_did() -> None:
    with pytest.raises(ClasslensError, match=r"^model 'vit_base_patch16_224' pools with 'max'"):
        classlens.load("vit_base_patch16_224", pretrained=False, **SIZE_32, global_pool="max")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"),
        ("swin_large_patch4_window7_224.ms_in22k", "vit_large_patch16_224"),
        ("maxvit_rmlp_base_rw_224", "vit_base_patch16_224"),
        ("resnet50", "vit_base_patch16_224"),
    ],
)
def test_no_plain_transformer_is_refused_before_its_weights_are_fetched(name: str, nearest: str) -> None:
    with pytest.raises(ClasslensError, match=rf"not a plain Vision Transformer.*nearest .*'{nearest}\."):
        classlens.load(name)
    assert timm.is_model_pretrained(f"{nearest}.augreg_in21k_ft_in1k")


def test_a_model_without_a_head_says_how_to_get_one() -> None:
    with pytest.raises(ClasslensError, match=r"num_classes=N .*checkpoint=FILE"):
        classlens.load("vit_small_patch14_dinov2", pretrained=False, **{**SMALL, "img_size": 28, "num_classes": None})


def test_blocks_with_one_residual_add_have_no_state_in_between() -> None:
    tiny = FAMILIES["parallel scaling"]
    trace = classlens.load(tiny.make()).trace(tiny.pixels())
    refused(lambda: trace.logits("resid_mid"), "share one residual add")


def test_pixels_of_another_size() -> None:
    model: Any = timm.create_model("vit_tiny_patch16_224", **SIZE_32, dynamic_img_size=True)
    randomize(model)
    lens = classlens.load(model)
    assert lens.trace(torch.randn(1, 3, 64, 32)).recording.tokens.grid == (4, 2)
    refused(lambda: lens.trace(torch.randn(1, 3, 40, 32)), "takes multiples of its 16×16 patches")
    fixed = classlens.load(FAMILIES["flexivit"].make())
    refused(lambda: fixed.trace(torch.randn(1, 3, 40, 32)), "takes 32×32", "img_size=(40, 32)")


def test_a_real_architecture() -> None:
    """In float32, as people run it; docs/models_table.py measures one of every family."""
    model = timm.create_model("vit_tiny_patch16_224", num_classes=7)
    randomize(model)
    lens = classlens.load(model)
    assert (len(lens.view.blocks), lens.view.tokens((224, 224)).grid) == (12, (14, 14))
    assert lens.checks.law1 <= 5e-7
    assert lens.checks.law2 <= 1e-4
