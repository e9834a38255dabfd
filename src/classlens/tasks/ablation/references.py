"""Activations that take the place of the output of a part: zeros, or means over a data set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from classlens.forward.means import Means
from classlens.forward.sweep import Part
from classlens.forward.sweep_parts import SWEEP_PARTS, means_of_parts
from classlens.models.view import ModelView

Reference = Literal["zero"] | Means
HEAD, MLP = "head", "mlp"
PartName = tuple[str, int, int]
"""Kind, block and head of a part; the head of an MLP is 0."""


def part_of(view: ModelView, name: PartName) -> Part:
    """The part of a name."""
    kind, block, head = name
    over, label = ("sublayers", "mlp") if kind == MLP else ("heads", head)
    return SWEEP_PARTS[over].part(view, block, label, "resid_pre")


def head_names(view: ModelView) -> list[PartName]:
    """Every head, block by block."""
    return [(HEAD, number, head) for number, block in enumerate(view.blocks) for head in range(block.heads)]


def part_text(name: PartName) -> str:
    """A name as it is shown: ``7.3`` for head 3 of block 7, ``MLP 7`` for its MLP."""
    kind, block, head = name
    return f"MLP {block}" if kind == MLP else f"{block}.{head}"


def references_of(
    view: ModelView, reference: Reference, count: int, parts: Iterable[Part]
) -> dict[tuple[str, int], Float[Tensor, "token column"]]:
    """References at the points of some parts, for ``count`` tokens.

    Raises ClasslensError for means of another model or of another number of tokens.
    """
    if isinstance(reference, Means):
        return means_of_parts(view, reference, count, parts)
    zeros = {}
    for point, block in dict.fromkeys((part.point, part.block) for part in parts):
        width, units = view.blocks[block].attn.weight.shape
        columns = width if point == "mlp_out" else units
        zeros[point, block] = torch.zeros(count, columns, device=view.device, dtype=view.dtype)
    return zeros
