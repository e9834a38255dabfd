"""One-hot rows of image tokens, set by hand, in float64."""

from __future__ import annotations

from torch import Tensor

from classlens import SelfOnly
from tests.forward.edits.by_hand import by_hand, close, edited, model, pixels


def test_every_block_and_head() -> None:
    vit, x = model(), pixels()

    def alone(_: int, a: Tensor) -> Tensor:
        a = a.clone()
        for query in range(1, 5):
            a[:, :, query] = 0
            a[:, :, query, query] = 1
        return a

    close(edited(vit, x, SelfOnly()), by_hand(vit, x, alone))


def test_some_blocks_and_heads() -> None:
    vit, x = model(), pixels()

    def alone(number: int, a: Tensor) -> Tensor:
        a = a.clone()
        if number in (0, 2):
            for query in range(1, 5):
                a[:, [0, 2], query] = 0
                a[:, [0, 2], query, query] = 1
        return a

    close(edited(vit, x, SelfOnly(blocks=[0, 2], heads=[2, 0])), by_hand(vit, x, alone))
