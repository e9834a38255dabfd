"""Steps that change the attention weights of some heads and blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from classlens.forward.edits.edit import EditStep
from classlens.forward.edits.selection import Indices, block_indices, head_indices
from classlens.models.view import ModelView

Weights = Float[Tensor, "image head query token"]


def attention_steps(
    view: ModelView, blocks: Indices, heads: Indices, change: Callable[[Weights], Weights], *, first: bool = False
) -> Iterator[EditStep]:
    """The same change of the attention weights of some heads in some blocks."""
    chosen = torch.zeros(view.blocks[0].heads, dtype=torch.bool)
    chosen[head_indices(view, heads)] = True

    def change_chosen(weights: Tensor, part: slice) -> Tensor:
        if bool(chosen.all()):
            return change(weights)
        return torch.where(chosen[part].to(weights.device)[:, None, None], change(weights), weights)

    for block in block_indices(view, blocks):
        yield EditStep("attention", block, change_chosen, first=first)


def renormalized(weights: Weights) -> Weights:
    """Rows scaled to sum to one; a row of zeros stays zero."""
    total = weights.sum(dim=-1, keepdim=True)
    return torch.where(total == 0, weights, weights / total)
