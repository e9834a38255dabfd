"""The class gradient while the model runs: every block is explained as it passes, and nothing is kept."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.attention import Loss
from classlens.explain.gradient import chosen_loss, explain_block, parts
from classlens.explain.queries import Query, queries_of
from classlens.forward.recording import Recording
from classlens.forward.streaming import stream
from classlens.models.view import ModelView

# Points of a block's attention; its output comes last.
_POINTS = ("values", "attn_joined", "attn_raw", "attn_out")


def explain_streamed(
    view: ModelView,
    pixels: Float[Tensor, "image channel height width"],
    target: Int[Tensor, " image"],
    *,
    loss: Loss | None = None,
    against: Int[Tensor, " image"] | None = None,
    query: Query = None,
) -> Float[Tensor, "image block head token"]:
    """``explain`` without a recording: memory beyond the forward pass is that of one block.

    ``explain_streamed(view, pixels, torch.tensor([3]))``. The map of a block needs its values and what its attention
    adds at the queries, which are there when the block has passed.
    """
    chosen = chosen_loss(loss, against)
    tokens = view.tokens((int(pixels.shape[2]), int(pixels.shape[3])))
    held: dict[tuple[str, int], Tensor] = {}
    # A recording of the one block that passes.
    passing = Recording(view, tokens, pixels.new_empty(len(pixels), 0), pixels, held)
    shape = (len(pixels), len(view.blocks), view.blocks[0].heads, tokens.grid[0] * tokens.grid[1])
    result = torch.zeros(shape, dtype=passing.dtype)
    wanted = queries_of(passing, query)

    def receive(name: str, block: int, x: Tensor) -> None:
        held[name, block] = x
        if name != "attn_out":
            return
        for asked in wanted:
            for part in parts(passing, asked):
                result[part, block] += explain_block(passing, asked, block, part, target, chosen, against)
        held.clear()

    stream(view, pixels, _POINTS, receive)
    return result
