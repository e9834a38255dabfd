"""Images per forward pass: as given, as the store was begun with, or as many as fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch

from classlens.errors import ClasslensError
from classlens.models.view import ModelView
from classlens.store.store import SHARD

BatchSize = int | Literal["auto"]

# Sixteen images keep two to sixteen CPU cores busy, and their states within a few hundred MiB.
_CPU = 16
_MAXIMUM = 256


def choose_batch_size(batch_size: BatchSize, begun: Mapping[str, Any] | None, view: ModelView, tokens: int) -> int:
    """A power of two for ``"auto"``; raises ClasslensError for a number that does not fit the shards of a store."""
    if batch_size == "auto":
        return int(begun["batch_size"]) if begun is not None else _fitting(view, tokens)
    value: object = batch_size  # the command line passes any text
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or (value > SHARD and value % SHARD):
        raise ClasslensError(
            f"batch size {batch_size!r} cannot be used: give auto, a number from 1 to {SHARD}, or a multiple of {SHARD}"
        )
    return value


def _fitting(view: ModelView, tokens: int) -> int:
    if view.device.type != "cuda":
        return _CPU
    free, _ = torch.cuda.mem_get_info(view.device)
    width = view.blocks[0].attn.weight.shape[0]
    # States of a block at its widest (queries, keys, values, hidden units, in float32), two buffers of class logits,
    # and attention weights where an edit unfuses them.
    image = 4 * tokens * (16 * width + 2 * view.num_classes + 2 * view.blocks[0].heads * tokens)
    size = 1
    while size < _MAXIMUM and 2 * size * image < free / 2:
        size *= 2
    return size
