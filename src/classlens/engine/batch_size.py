"""Images per forward pass: as given, as the store was begun with, or as many as fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import torch

from classlens.core.arguments import Takes
from classlens.models.view import ModelView, Tokens
from classlens.store.metadata import SHARD

BatchSize = Annotated[
    int | Literal["auto"],
    Takes(
        f"auto, a whole number from 1 to {SHARD}, or a multiple of {SHARD}",
        lambda size: size == "auto" or 1 <= size <= SHARD or (size > 0 and size % SHARD == 0),
    ),
]

Passes = Callable[[ModelView, Tokens], float]
"""Forward passes per image between two points where a run can be saved."""

# Sixteen images keep two to sixteen CPU cores busy, and their states within a few hundred MiB.
_CPU = 16
# Operations of a batch on a CPU: some ten seconds on two cores, as a stop loses the batch that is under way.
_OPERATIONS = 1e12
_MAXIMUM = 256


def one_pass(view: ModelView, tokens: Tokens) -> float:
    """``Passes`` of a task that runs the model once in each group."""
    return 1


def choose_batch_size(
    batch_size: BatchSize, begun: Mapping[str, Any] | None, view: ModelView, tokens: Tokens, passes: Passes
) -> int:
    """A power of two for ``"auto"``; any other number as it is.

    ``passes``: forward passes per image between two points where a run can be saved.
    """
    if batch_size == "auto":
        return int(begun["batch_size"]) if begun is not None else _fitting(view, tokens.count, passes(view, tokens))
    return batch_size


def _fitting(view: ModelView, tokens: int, passes: float) -> int:
    width = view.blocks[0].attn.weight.shape[0]
    if view.device.type != "cuda":
        # A multiplication and an addition for each weight and token, and for each logit of four sites of each block.
        weights = sum(parameter.numel() for parameter in view.module.parameters())
        image = 2 * tokens * (passes * weights + 4 * len(view.blocks) * width * view.num_classes)
        return next(size for size in (_CPU, 8, 4, 2, 1) if size == 1 or size * image <= _OPERATIONS)
    free, _ = torch.cuda.mem_get_info(view.device)
    # States of a block at its widest (queries, keys, values, hidden units, in float32), two buffers of class logits,
    # and attention weights where an edit unfuses them.
    image = 4 * tokens * (16 * width + 2 * view.num_classes + 2 * view.blocks[0].heads * tokens)
    size = 1
    while size < _MAXIMUM and 2 * size * image < free / 2:
        size *= 2
    return size
