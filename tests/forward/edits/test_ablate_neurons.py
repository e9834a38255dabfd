"""Hidden units replaced by hand, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from classlens import AblateNeurons
from tests.forward.edits.by_hand import by_hand, close, edited, model, pixels, refused


def test_ablated_neurons() -> None:
    vit, x = model(), pixels()
    values = torch.tensor([0.5, -2.0], dtype=torch.float64)

    def some(number: int, h: Tensor) -> Tensor:
        h = h.clone()
        if number == 2:
            h[..., [7, 3]] = values
        return h

    close(edited(vit, x, AblateNeurons([7, 3], blocks=[2], to=values)), by_hand(vit, x, hidden=some))
    close(edited(vit, x, AblateNeurons("all")), by_hand(vit, x, hidden=lambda _, h: 0 * h))


def test_channels_of_attention() -> None:
    vit, x = model(), pixels()

    def some(_: int, y: Tensor) -> Tensor:
        y = y.clone()
        y[:, 1, :, 2] = 0  # channel 10: heads have 8
        return y

    close(edited(vit, x, AblateNeurons(10, sublayer="attn")), by_hand(vit, x, heads=some))


@pytest.mark.wrong_types
def test_an_unknown_sublayer() -> None:
    refused(lambda: AblateNeurons([0], sublayer="mlps"), "sublayer 'mlps' is not known; did you mean 'mlp'?")  # type: ignore[arg-type]
