"""Activations that take the place of the output of a part: zeros, or means over a data set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from classlens.forward.edits.columns import joined_heads
from classlens.forward.means import Means, means_at, require_means_of
from classlens.forward.sweep import Part
from classlens.models.view import ModelView

Reference = Literal["zero"] | Means
HEAD, MLP = "head", "mlp"
PartName = tuple[str, int, int]
"""Kind, block and head of a part; the head of an MLP is 0."""


def part_of(view: ModelView, name: PartName) -> Part:
    """The part of a name."""
    kind, block, head = name
    if kind == MLP:
        return Part("mlp_out", block)
    point, channels = joined_heads(view, block)
    return Part(point, block, columns=slice(head * channels, (head + 1) * channels))


def head_names(view: ModelView) -> list[PartName]:
    """Every head, block by block."""
    return [(HEAD, number, head) for number, block in enumerate(view.blocks) for head in range(block.heads)]


def part_text(name: PartName) -> str:
    """A name as it is shown: ``7.3`` for head 3 of block 7, ``MLP 7`` for its MLP."""
    kind, block, head = name
    return f"MLP {block}" if kind == MLP else f"{block}.{head}"


def references_of(
    view: ModelView, reference: Reference, count: int, points: Iterable[tuple[str, int]]
) -> dict[tuple[str, int], Float[Tensor, "token column"]]:
    """What takes the place of the activations at some points of blocks, for ``count`` tokens.

    Raises ClasslensError for means of another model or of another number of tokens.
    """
    if isinstance(reference, Means):
        require_means_of(view, reference)
    found = {}
    for point, block in dict.fromkeys(points):
        if isinstance(reference, Means):
            value = means_at(reference, view, point, block)
        else:
            width, units = view.blocks[block].attn.weight.shape
            value = torch.zeros(count, width if point == "mlp_out" else units)
        found[point, block] = value.to(view.device, view.dtype)
    return found
