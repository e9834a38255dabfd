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
from classlens.models.view import ModelView

Replacement = Annotated[Literal["zero", "mean"] | Tensor | Array, Takes("'zero', 'mean' or a tensor")]
Activations = Float[Tensor, "image token channel"]


def checked_replacement(to: Replacement) -> Literal["zero", "mean"] | Tensor:
    """A replacement with arrays as tensors; raises ClasslensError for an array of anything but numbers."""
    return to if isinstance(to, str) else taken("to", to, Tensor)


def replacement(to: Literal["zero", "mean"] | Tensor, x: Activations) -> Activations:
    """The tensor that takes the place of ``x``."""
    if isinstance(to, Tensor):
        try:
            return to.to(x.device, x.dtype).expand_as(x)
        except RuntimeError:
            raise ClasslensError(
                f"a tensor of shape {list(to.shape)} was given to take the place of {list(x.shape)}: give one that "
                "fits [image, token, channel]"
            ) from None
    if to == "zero":
        return torch.zeros_like(x)
    if len(x) < 2:
        raise ClasslensError("to='mean' is the mean over the images of a batch, and this one has 1: give a tensor")
    # A constant: gradients of one image by another would mean nothing.
    return x.detach().mean(dim=0, keepdim=True).expand_as(x)


def replace_columns(
    columns: Int[Tensor, " column"],
    tokens: TokenSelector,
    to: Literal["zero", "mean"] | Tensor,
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
