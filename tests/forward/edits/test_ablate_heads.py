"""Outputs of heads replaced by hand, in float64, and the replacements that all ablations share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from classlens import AblateHeads, AblateNeurons, AblateSublayer, Edit
from tests.forward.edits.by_hand import by_hand, close, edited, model, pixels, refused


def test_ablated_heads() -> None:
    vit, x = model(), pixels()

    def zero(number: int, y: Tensor) -> Tensor:
        y = y.clone()
        if number == 1:
            y[:, [0, 2], 1:] = 0
        return y

    def mean(_: int, y: Tensor) -> Tensor:
        y = y.clone()
        y[:, 1] = y[:, 1].mean(dim=0)
        return y

    close(edited(vit, x, AblateHeads([0, 2], blocks=1, tokens="image")), by_hand(vit, x, heads=zero))
    close(edited(vit, x, AblateHeads(1, to="mean")), by_hand(vit, x, heads=mean))
    close(edited(vit, x, AblateHeads("all")), by_hand(vit, x, heads=lambda _, y: 0 * y))


@pytest.mark.parametrize(
    "edit", [AblateHeads([0], to="mean"), AblateNeurons([0], to="mean"), AblateSublayer("mlp", to="mean")]
)
def test_the_mean_of_one_image_is_none(edit: Edit) -> None:
    message = "to='mean' is the mean over the images of a batch, and this one has 1: give a tensor"
    refused(edit, message, entered=True, images=1)


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("max", "to 'max' cannot be used: give 'zero', 'mean' or a tensor"),
        (0.5, "to 0.5 cannot be used"),
        (None, "to None cannot be used"),
        ([0.0], "to [0.0] cannot be used"),
        (np.array(["zero"]), "to of type ndarray, [1], <U4 cannot be used"),
    ],
)
@pytest.mark.wrong_types
def test_no_replacement(to: object, message: str) -> None:
    for edit in (
        lambda: AblateHeads([0], to=to),  # type: ignore[arg-type]
        lambda: AblateNeurons([0], to=to),  # type: ignore[arg-type]
        lambda: AblateSublayer("mlp", to=to),  # type: ignore[arg-type]
    ):
        refused(edit, message)


def test_a_tensor_that_does_not_fit() -> None:
    for values in (torch.zeros(2, 5, 8), np.zeros((2, 5, 8)), torch.zeros(3)):
        message = f"a tensor of shape {list(values.shape)} was given to take the place of [3, 5, 8]: give one that fits"
        refused(AblateHeads([0], to=values), message, entered=True)
