"""Tokens, blocks, heads and units as they may be given: names, indices, slices, masks, tensors and arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import classlens
from classlens import AblateHeads, AblateNeurons, CutAttention, Edit, KeepTokens, NoCls, Patch, SelfOnly
from classlens.forward.edits.selection import (
    block_indices,
    head_indices,
    token_selector,
    unit_indices,
)
from tests import zoo
from tests.forward.edits.by_hand import close, edited, model, pixels, refused

VIEW = classlens.load(zoo.build("cls_registers")).view  # cls, reg0, reg1 and 4 image tokens


@pytest.mark.parametrize(
    ("group", "tokens"),
    [
        ("all", range(7)),
        ("image", range(3, 7)),
        ("prefix", range(3)),
        ("cls", [0]),
        ("reg1", [2]),
        (5, [5]),
        ([6, 0, 6], [0, 6]),
        ((4,), [4]),
        (range(2), [0, 1]),
        (slice(-2, None), [5, 6]),
        (slice(None, None, -3), [0, 3, 6]),
        (torch.tensor([1, 4]), [1, 4]),
        (torch.tensor(4), [4]),
        (np.array([1, 4]), [1, 4]),
        (np.int64(4), [4]),
        ([np.int32(1), 4], [1, 4]),
        (torch.arange(7) == 3, [3]),
        (np.arange(7) == 3, [3]),
        ((np.arange(7) < 3)[::-1], [4, 5, 6]),
    ],
)
def test_groups_of_tokens(group: Any, tokens: Any) -> None:
    expected = [[index in tokens for index in range(7)]]
    select = token_selector(VIEW, group)
    assert select(torch.zeros(2, 7, 24)).tolist() == expected
    assert select(torch.zeros(2, 3, 7, 7)).tolist() == expected, "attention weights"


@pytest.mark.parametrize("kind", [torch.as_tensor, np.asarray])
def test_masks_by_image(kind: Callable[[Any], Any]) -> None:
    mask = np.arange(14).reshape(2, 7) % 3 == 0
    assert token_selector(VIEW, kind(mask))(torch.zeros(2, 7, 24)).tolist() == mask.tolist()


@pytest.mark.parametrize(
    ("chosen", "indices"),
    [
        ("all", [0, 1, 2]),
        (1, [1]),
        ([2, 0], [2, 0]),
        (range(2), [0, 1]),
        (torch.tensor([2, 1]), [2, 1]),
        (np.array([2, 1]), [2, 1]),
        (np.int64(2), [2]),
    ],
)
def test_indices_of_parts(chosen: Any, indices: list[int]) -> None:
    assert block_indices(VIEW, chosen) == indices
    assert head_indices(VIEW, chosen) == indices
    if not isinstance(chosen, str):
        assert unit_indices(VIEW, 0, "mlp", chosen) == indices
    assert unit_indices(VIEW, 0, "attn", "all") == list(range(24))
    assert unit_indices(VIEW, 0, "mlp", "all") == list(range(48))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SelfOnly(blocks=3), "block 3 does not exist: model 'VisionTransformer' has blocks 0 to 2"),
        (lambda: SelfOnly(blocks=[0, -1]), "block -1 does not exist"),
        (lambda: SelfOnly(blocks=[]), "no blocks were given: give some of 0 to 2, or 'all'"),
        (lambda: SelfOnly(blocks="every"), "blocks 'every' cannot be used: give whole numbers, or 'all'"),  # type: ignore[arg-type]
        (lambda: SelfOnly(blocks=None), "blocks None cannot be used: give whole numbers, or 'all'"),  # type: ignore[arg-type]
        (lambda: SelfOnly(blocks=[True]), "blocks [True] cannot be used: give whole numbers, or 'all'"),
        (lambda: NoCls(heads=[3]), "head 3 does not exist: model 'VisionTransformer' has heads 0 to 2"),
        (lambda: AblateHeads([]), "no heads were given"),
        (
            lambda: AblateHeads(np.array([0.5])),
            "heads of type Tensor, [1], torch.float64 cannot be used",
        ),
        (lambda: AblateNeurons([48]), "unit 48 does not exist: model 'VisionTransformer' has units 0 to 47"),
        (lambda: AblateNeurons([24], sublayer="attn"), "unit 24 does not exist"),
        (lambda: CutAttention("dist", "image"), "no tokens called 'dist'"),
        (lambda: CutAttention("image", "clss"), "no tokens called 'clss'; did you mean 'cls'?"),
        (lambda: CutAttention([5], "image"), "token 5 does not exist: the model has tokens 0 to 4"),
        (lambda: CutAttention(-1, "image"), "token -1 does not exist"),
        (lambda: CutAttention([], "image"), "tokens [] take no token: give some of 0 to 4"),
        (lambda: AblateHeads([0], tokens=slice(5, 9)), "tokens slice(5, 9, None) take no token: give some of 0 to 4"),
        (lambda: CutAttention("image", [0.5]), "keys [0.5] cannot be used: give the name"),  # type: ignore[list-item]
        (
            lambda: CutAttention(np.array(["cls"]), "image"),
            "tokens of type ndarray, [1], <U3 cannot be used",
        ),
        (lambda: CutAttention("image", torch.ones(4, dtype=torch.bool)), "a mask of shape [4] was given for 5 tokens"),
        (
            lambda: CutAttention("image", np.ones((1, 2, 5), dtype=bool)),
            "a mask of shape [1, 2, 5] was given for 5 tokens",
        ),
    ],
)
@pytest.mark.wrong_types
def test_parts_that_do_not_exist(make: Callable[[], Edit], message: str) -> None:
    refused(make, message)


def test_a_mask_of_other_images() -> None:
    mask = np.ones((2, 5), dtype=bool)
    for edit in (CutAttention("image", mask), AblateHeads([0], tokens=mask), Patch("mlp_out", pixels(1), tokens=mask)):
        refused(edit, "tokens of 2 images were given, but 3 run at once: give one row for each", entered=True)


MASK = np.array([[1, 0, 1, 1, 0], [1, 1, 0, 0, 1], [1, 1, 1, 1, 0]], dtype=bool)
VALUES = np.random.default_rng(0).normal(size=(3, 5, 24))


@pytest.mark.parametrize(
    "make",
    [
        lambda kind: KeepTokens(kind(MASK)),
        lambda kind: CutAttention(kind(MASK), kind(~MASK), blocks=kind(np.array([0, 2])), heads=kind(np.array([1]))),
        lambda kind: SelfOnly(blocks=kind(np.array([0, 2])), heads=kind(np.array([1]))),
        lambda kind: AblateHeads(kind(np.array([2])), tokens=kind(MASK), to=kind(VALUES[..., :8])),
        lambda kind: AblateNeurons(kind(np.array([9, 3])), tokens=kind(MASK), to=kind(VALUES[..., :2])),
        lambda kind: classlens.AblateSublayer("attn", tokens=kind(MASK), to=kind(VALUES)),
        lambda kind: Patch("mlp_out", kind(pixels(3, seed=4).numpy()), blocks=kind(np.array([1])), tokens=kind(MASK)),
        lambda kind: Patch("heads", kind(pixels(1, seed=4).numpy()), heads=kind(np.array([0, 2]))),
    ],
)
def test_every_argument_takes_arrays_and_tensors(make: Callable[[Callable[[Any], Any]], Edit]) -> None:
    vit, x = model(), pixels()
    logits = edited(vit, x, make(np.asarray))
    close(logits, edited(vit, x, make(torch.as_tensor)))
    with torch.no_grad():
        assert not torch.allclose(logits, vit(x))
