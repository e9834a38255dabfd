"""Outputs of heads replaced by hand, in float64, and the replacements that all ablations share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from classlens import AblateHeads, AblateNeurons, AblateSublayer
from tests.forward.edits.by_hand import by_hand, close, edited, model, pixels, refused


def test_ablated_heads() -> None:
    vit, x = model(), pixels()

    def zero(number: int, y: Tensor) -> Tensor:
        y = y.clone()
        if number == 1:
            y[:, [0, 2], 1:] = 0
        return y

    close(edited(vit, x, AblateHeads([0, 2], blocks=1, tokens="image")), by_hand(vit, x, heads=zero))
    close(edited(vit, x, AblateHeads("all")), by_hand(vit, x, heads=lambda _, y: 0 * y))


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("max", "to 'max' cannot be used: give 'zero', a tensor, or the means of a data set (`classlens means`)"),
        ("mean", "to 'mean' cannot be used: give 'zero', a tensor, or the means of a data set (`classlens means`)"),
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
