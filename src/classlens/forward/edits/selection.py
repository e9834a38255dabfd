"""Selects the tokens, blocks, heads and units of an edit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from classlens.core.arguments import Takes, is_whole_number, shown, tensor_of
from classlens.core.arrays import Array
from classlens.errors import ClasslensError, suggestion, unknown
from classlens.forward.agreement import SUBLAYERS
from classlens.models.view import ModelView

TokenGroup = Annotated[
    str | int | np.integer | Sequence[int | np.integer] | slice | Tensor | Array,
    Takes("the name of a group of tokens, indices, a slice, or a bool mask [token] or [image, token]"),
]
"""``"cls"``, ``"image"``, ``"prefix"``, ``"all"``, another prefix token's name, indices, a slice, or a bool mask
``[token]`` or ``[image, token]``."""
Indices = Annotated[
    int | np.integer | Sequence[int | np.integer] | Tensor | Array | Literal["all"],
    Takes("whole numbers, or 'all'"),
]
"""Indices of blocks, heads or units, or ``"all"``."""
TokenSelector = Callable[[Tensor], Tensor]
"""From a passing tensor (``[image, token, channel]`` or attention weights) to a bool mask ``[image or 1, token]``."""


def token_selector(view: ModelView, group: TokenGroup) -> TokenSelector:
    """A group of tokens, for any number of passing tokens; raises ClasslensError for a token that does not exist."""
    group = _plain(group)

    def select(x: Tensor) -> Tensor:
        mask = _mask(view, group, x.shape[-1] if x.ndim == 4 else x.shape[1])
        if mask.shape[0] not in (1, len(x)):
            raise ClasslensError(
                f"tokens of {mask.shape[0]} images were given, but {len(x)} run at once: give one row for each"
            )
        return mask.to(x.device)

    if not view.any_size:
        _mask(view, group, view.tokens(view.input_size).count)
    return select


def token_positions(view: ModelView, group: TokenGroup, count: int) -> Int[Tensor, " chosen"]:
    """Positions of a group of tokens, of ``count``, in ascending order; raises ClasslensError for a mask by image."""
    mask = _mask(view, _plain(group), count)
    if len(mask) != 1:
        raise ClasslensError(f"a mask of tokens of {len(mask)} images was given: give one for all of them, [token]")
    positions = mask[0].cpu().nonzero()[:, 0]
    if not len(positions):
        raise ClasslensError(f"tokens {shown(group)} take no token: give some of 0 to {count - 1}")
    return positions


def _plain(group: TokenGroup) -> TokenGroup:
    """Indices in an array as a list; a mask as a tensor."""
    array = tensor_of(group)
    if array is None:
        return group
    return array if array.dtype == torch.bool else array.tolist()


def _mask(view: ModelView, group: TokenGroup, count: int) -> Tensor:
    if isinstance(group, Tensor):
        rows = group[None] if group.ndim == 1 else group
        if rows.ndim != 2 or rows.shape[1] != count:
            raise ClasslensError(
                f"a mask of shape {list(group.shape)} was given for {count} tokens: give [token] or [image, token]"
            )
        return rows
    mask = torch.zeros(1, count, dtype=torch.bool)
    if isinstance(group, str):
        prefix = len(view.prefix)
        names = {"all": slice(None), "image": slice(prefix, None), "prefix": slice(0, prefix)}
        names |= {name: slice(index, index + 1) for index, name in enumerate(view.prefix)}
        if group not in names:
            raise ClasslensError(
                f"model {view.name!r} has no tokens called {group!r}{suggestion(group, names)}; "
                f"it has {', '.join(names)}"
            )
        mask[:, names[group]] = True
        return mask
    indices = list(range(count))[group] if isinstance(group, slice) else _whole_numbers(group, "tokens")
    if not indices:
        raise ClasslensError(f"tokens {group!r} take no token: give some of 0 to {count - 1}")
    wrong = [index for index in indices if not 0 <= index < count]
    if wrong:
        raise ClasslensError(f"token {wrong[0]} does not exist: the model has tokens 0 to {count - 1}")
    mask[:, indices] = True
    return mask


def block_indices(view: ModelView, blocks: Indices) -> list[int]:
    """Indices of blocks."""
    return _indices(view, "block", blocks, len(view.blocks))


def head_indices(view: ModelView, heads: Indices) -> list[int]:
    """Indices of heads."""
    return _indices(view, "head", heads, view.blocks[0].heads)


def unit_indices(view: ModelView, block: int, sublayer: str, units: Indices) -> list[int]:
    """Indices of hidden units of an MLP or of channels of attention."""
    check_sublayer(sublayer)
    output = view.blocks[block].attn if sublayer == "attn" else view.blocks[block].mlp
    return _indices(view, "unit", units, output.weight.shape[1])


def check_sublayer(sublayer: str) -> None:
    """Raises ClasslensError for an unknown sublayer."""
    if sublayer not in SUBLAYERS:
        raise unknown("sublayer", sublayer, SUBLAYERS)


def _indices(view: ModelView, part: str, chosen: Indices, count: int) -> list[int]:
    if isinstance(chosen, str) and chosen == "all":
        return list(range(count))
    indices = _whole_numbers(chosen, f"{part}s")
    for index in indices:
        if not 0 <= index < count:
            raise ClasslensError(f"{part} {index} does not exist: model {view.name!r} has {part}s 0 to {count - 1}")
    if not indices:
        raise ClasslensError(f"no {part}s were given: give some of 0 to {count - 1}, or 'all'")
    return indices


def _whole_numbers(chosen: object, parts: str) -> list[int]:
    array = tensor_of(chosen)
    numbers = chosen if array is None else array.tolist()
    if is_whole_number(numbers):
        numbers = [numbers]
    if not isinstance(numbers, Sequence) or not all(map(is_whole_number, numbers)):
        raise ClasslensError(f"{parts} {shown(chosen)} cannot be used: give whole numbers")
    return [int(number) for number in numbers]
