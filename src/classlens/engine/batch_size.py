"""How many images go through the model at once: as given, as the store was begun with, or as fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch

from classlens.errors import ClasslensError
from classlens.models.view import ModelView
from classlens.store.store import SHARD

# Sixteen images keep two to sixteen CPU cores busy and their states within some hundred MiB.
_CPU = 16
_LARGEST = 256


def chosen_batch_size(
    given: int | Literal["auto"], begun: Mapping[str, Any] | None, view: ModelView, tokens: int
) -> int:
    """A power of two for ``"auto"``; raises ClasslensError for a number that does not fit the shards of a store."""
    if given == "auto":
        return int(begun["batch_size"]) if begun is not None else _fitting(view, tokens)
    number: object = given  # the command line may hand over any text
    if isinstance(number, bool) or not isinstance(number, int) or given < 1 or (given > SHARD and given % SHARD):
        raise ClasslensError(
            f"batch size {given!r} cannot be used: give auto, a number from 1 to {SHARD}, or a multiple of {SHARD}"
        )
    return given


def _fitting(view: ModelView, tokens: int) -> int:
    if view.device.type != "cuda":
        return _CPU
    free, _ = torch.cuda.mem_get_info(view.device)
    width = view.blocks[0].attn.weight.shape[0]
    # States of a block at its widest (queries, keys, values, hidden units, all in float32 at worst), two buffers of
    # class logits, and attention weights where an edit unfuses them.
    image = 4 * tokens * (16 * width + 2 * view.num_classes + 2 * view.blocks[0].heads * tokens)
    size = 1
    while size < _LARGEST and 2 * size * image < free / 2:
        size *= 2
    return size
