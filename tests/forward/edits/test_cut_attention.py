"""Attention cut by hand, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import classlens
from classlens import CutAttention, NoCls
from tests import zoo
from tests.forward.edits.by_hand import by_hand, close, edited, model, pixels, refusal


@pytest.mark.parametrize("renormalize", [False, True])
def test_no_cls(renormalize: bool) -> None:
    vit, x = model(), pixels()

    def cut(_: int, a: Tensor) -> Tensor:
        a = a.clone()
        a[:, :, 1:, 0] = 0
        if renormalize:
            a[:, :, 1:] = a[:, :, 1:] / a[:, :, 1:].sum(dim=-1, keepdim=True)
        return a

    close(edited(vit, x, NoCls(renormalize=renormalize)), by_hand(vit, x, cut))
    close(edited(vit, x, CutAttention("image", "cls", renormalize)), by_hand(vit, x, cut))


def test_any_groups_of_tokens() -> None:
    vit, x = model(), pixels()
    keys = torch.tensor([[0, 1, 0, 1, 0], [1, 0, 0, 0, 1], [0, 0, 1, 0, 0]]).bool()

    def cut(_: int, a: Tensor) -> Tensor:
        a = a.clone()
        for image in range(3):
            for query in (0, 3):
                for key in range(5):
                    if keys[image, key]:
                        a[image, :, query, key] = 0
        return a

    close(edited(vit, x, CutAttention(queries=[0, 3], keys=keys)), by_hand(vit, x, cut))


def test_no_cls_in_some_blocks_and_heads() -> None:
    vit, x = model(), pixels()

    def cut(number: int, a: Tensor) -> Tensor:
        a = a.clone()
        if number == 1:
            a[:, 2, 1:, 0] = 0
        return a

    close(edited(vit, x, NoCls(False, 1, 2)), by_hand(vit, x, cut))


def test_no_cls_needs_one() -> None:
    message = refusal(NoCls(), classlens.load(zoo.build("avg")), zoo.pixels("avg"), entered=False)
    assert message.startswith("model 'VisionTransformer' has no tokens called 'cls'")


def test_no_cls_says_what_it_cuts() -> None:
    assert repr(NoCls(blocks=[1])) == ("NoCls(queries='image', keys='cls', renormalize=False, blocks=[1], heads='all')")
