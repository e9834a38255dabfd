"""What a sublayer adds, replaced by hand, in float64."""

from __future__ import annotations

import pytest

from classlens import AblateSublayer
from tests.forward.edits.by_hand import by_hand, close, edited, model, pixels, refused


def test_ablated_sublayers() -> None:
    vit, x = model(), pixels()
    nothing = by_hand(vit, x, mlp=lambda number, added: added * (number != 0))
    close(edited(vit, x, AblateSublayer("mlp", blocks=0)), nothing)


@pytest.mark.wrong_types
def test_an_unknown_sublayer() -> None:
    message = "sublayer 'norm' is not known; give one of attn, mlp"
    refused(lambda: AblateSublayer("norm"), message)  # type: ignore[arg-type]
