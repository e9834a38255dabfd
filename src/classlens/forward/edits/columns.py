"""Replaces columns (channels or hidden units) of some tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.arguments import Takes, taken
from classlens.core.arrays import Array
from classlens.errors import ClasslensError
from classlens.forward.edits.selection import TokenSelector
from classlens.forward.means import Means, means_at, require_means_of
from classlens.models.view import ModelView

Replacement = Annotated[
    Literal["zero"] | Tensor | Array | Means,
    Takes("'zero', a tensor, or the means of a data set (`classlens means`)"),
]
Activations = Float[Tensor, "image token channel"]


def checked_replacement(view: ModelView, to: Replacement) -> Literal["zero"] | Tensor | Means:
    """A replacement with arrays as tensors.

    Raises ClasslensError for an array of anything but numbers, and for means of another model.
    """
    if isinstance(to, Means):
        require_means_of(view, to)
        return to
    return to if isinstance(to, str) else taken("to", to, Tensor)


def replacement_at(
    to: Literal["zero"] | Tensor | Means,
    view: ModelView,
    point: str,
    block: int,
    columns: Int[Tensor, " column"] | slice = slice(None),
) -> Literal["zero"] | Tensor:
    """The replacement of some columns at a point of a block."""
    return means_at(to, view, point, block)[:, columns] if isinstance(to, Means) else to


def replacement(to: Literal["zero"] | Tensor, x: Activations) -> Activations:
    """The tensor that takes the place of ``x``."""
    if not isinstance(to, Tensor):
        return torch.zeros_like(x)
    try:
        return to.to(x.device, x.dtype).expand_as(x)
    except RuntimeError:
        raise ClasslensError(
            f"a tensor of shape {list(to.shape)} was given to take the place of {list(x.shape)}: give one that "
            "fits [image, token, channel], or means of this number of tokens"
        ) from None


def replace_columns(
    columns: Int[Tensor, " column"],
    tokens: TokenSelector,
    to: Literal["zero"] | Tensor,
    x: Activations,
    part: slice,
) -> Activations:
    """Some columns of some tokens replaced; ``x`` holds the columns ``part`` of all."""
    start, stop = part.start or 0, x.shape[-1] if part.stop is None else part.stop
    inside = (columns >= start) & (columns < stop)
    local = (columns[inside] - start).to(x.device)
    if isinstance(to, Tensor) and to.ndim and to.shape[-1] == len(columns):
        to = to[..., inside.to(to.device)]
    chosen = x[..., local]
    x = x.clone()
    x[..., local] = torch.where(tokens(x)[..., None], replacement(to, chosen), chosen)
    return x


def joined_heads(view: ModelView, block: int) -> tuple[str, int]:
    """The point at which all heads pass, joined, before an inner norm; and the number of channels of a head."""
    block_view = view.blocks[block]
    point = "attn_joined" if "attn_joined" in block_view.points else "attn_coefficients"
    return point, block_view.attn.weight.shape[1] // block_view.heads


def head_columns(heads: Sequence[int], channels: int) -> Int[Tensor, " column"]:
    """Columns of some heads among all heads joined."""
    return torch.tensor([head * channels + channel for head in heads for channel in range(channels)])
