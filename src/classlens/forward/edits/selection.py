"""Which tokens, blocks, heads and units an edit is about."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from classlens.errors import ClasslensError, suggestion
from classlens.models.view import ModelView

TokenGroup = str | int | Sequence[int] | slice | Tensor
Blocks = int | Sequence[int] | None
Group = Callable[[Tensor], Tensor]
"""From what passes (``[image, token, channel]`` or attention weights) to a bool mask ``[image or 1, token]``."""


def token_selector(view: ModelView, which: TokenGroup) -> Group:
    """A group of tokens, for whatever number of them passes; raises ClasslensError for one that does not exist."""

    def mask(x: Tensor) -> Tensor:
        found = _mask(view, which, x.shape[-1] if x.ndim == 4 else x.shape[1])
        if found.shape[0] not in (1, len(x)):
            raise ClasslensError(
                f"tokens of {found.shape[0]} images were given, but {len(x)} run at once: give one row for each"
            )
        return found.to(x.device)

    if not view.any_size:
        _mask(view, which, view.tokens(view.input_size).count)
    return mask


def _mask(view: ModelView, which: TokenGroup, count: int) -> Tensor:
    prefix = len(view.prefix)
    found = torch.zeros(1, count, dtype=torch.bool)
    if isinstance(which, Tensor) and which.dtype == torch.bool:
        rows = which[None] if which.ndim == 1 else which
        if rows.ndim != 2 or rows.shape[1] != count:
            raise ClasslensError(
                f"a mask of shape {list(which.shape)} was given for {count} tokens: give [token] or [image, token]"
            )
        return rows
    if isinstance(which, str):
        named = {"all": slice(None), "image": slice(prefix, None), "prefix": slice(0, prefix)}
        named |= {name: slice(place, place + 1) for place, name in enumerate(view.prefix)}
        if which not in named:
            raise ClasslensError(
                f"model {view.name!r} has no tokens called {which!r}{suggestion(which, named)}; "
                f"it has {', '.join(named)}"
            )
        found[:, named[which]] = True
        return found
    if isinstance(which, slice):
        found[:, which] = True
    indices = found[0].nonzero()[:, 0].tolist() if isinstance(which, slice) else _whole(which, "tokens")
    if not indices:
        raise ClasslensError(f"{which!r} takes no token: give some of 0 to {count - 1}")
    wrong = [index for index in indices if not 0 <= index < count]
    if wrong:
        raise ClasslensError(f"token {wrong[0]} does not exist: the model has tokens 0 to {count - 1}")
    found[:, indices] = True
    return found


def block_indices(view: ModelView, blocks: Blocks) -> list[int]:
    """Indices of blocks, all for None."""
    return _within(list(range(len(view.blocks))) if blocks is None else blocks, len(view.blocks), view, "block")


def head_indices(view: ModelView, heads: Sequence[int] | int | None) -> list[int]:
    """Indices of heads, all for None."""
    count = view.blocks[0].heads
    return _within(list(range(count)) if heads is None else heads, count, view, "head")


def unit_indices(view: ModelView, block: int, sublayer: str, units: Sequence[int] | int) -> list[int]:
    """Indices of hidden units of an MLP or of channels of attention."""
    if sublayer not in ("attn", "mlp"):
        raise ClasslensError(f"sublayer {sublayer!r} is not known: give attn or mlp")
    output = view.blocks[block].attn if sublayer == "attn" else view.blocks[block].mlp
    return _within(units, output.weight.shape[1], view, "unit")


def _within(indices: Sequence[int] | int, count: int, view: ModelView, what: str) -> list[int]:
    found = _whole(indices, f"{what}s")
    for index in found:
        if not 0 <= index < count:
            raise ClasslensError(f"{what} {index} does not exist: model {view.name!r} has {what}s 0 to {count - 1}")
    if not found:
        raise ClasslensError(f"no {what}s were given: give some of 0 to {count - 1}, or leave them out for all")
    return found


def _whole(indices: object, what: str) -> list[int]:
    items = indices.tolist() if isinstance(indices, Tensor) else indices
    items = [items] if isinstance(items, int) else list(items) if isinstance(items, Sequence | range) else None
    if items is None or not all(isinstance(each, int) and not isinstance(each, bool) for each in items):
        raise ClasslensError(f"{what} were given as {indices!r}"[:80] + ": give whole numbers")
    return items
