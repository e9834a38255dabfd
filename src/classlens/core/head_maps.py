"""The map of an attention head between classes, from parameters alone."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Entries of the map held at once: 32 MiB in float32 with their order.
_SCRATCH = 2**22


class HeadMap(NamedTuple):
    """The largest entries of a head's map, the largest first; and the share of classes that the head copies."""

    input_class: Int[Tensor, " pair"]
    output_class: Int[Tensor, " pair"]
    score: Float[Tensor, " pair"]
    copy_share: float


def head_map(
    embedding: Float[Tensor, "classes width"],
    value: Float[Tensor, "channel width"],
    output: Float[Tensor, "width channel"],
    k: int = 20,
) -> HeadMap:
    """The ``k`` largest entries of ``E W_Vᵀ W_Oᵀ Eᵀ``: how a token of one class writes another through a head.

    Rows are classes that come in, columns those that go out; with LayerScale within ``output``. Ties by row, then
    column. ``copy_share`` is the share of rows whose own class scores strictly highest. The map is never held as a
    whole. Source: Dar et al., *Analyzing Transformers in Embedding Space*, ACL 2023.
    """
    left, right = embedding @ value.T, output.T @ embedding.T
    classes = len(embedding)
    k = min(k, classes**2)
    scores, order = left.new_empty(0), torch.empty(0, dtype=torch.int64, device=left.device)
    copied, step = 0, max(1, _SCRATCH // classes)
    for start in range(0, classes, step):
        part = left[start : start + step] @ right
        entries = part.flatten()
        if len(scores) < k:
            best = torch.nonzero(entries >= entries.topk(min(k, len(entries))).values[-1])[:, 0]
        else:  # of equal scores, those of earlier rows come first
            best = torch.nonzero(entries > scores[-1])[:, 0]
        scores = torch.cat([scores, entries[best]])
        order = torch.cat([order, best + start * classes])
        highest = scores.sort(descending=True, stable=True).indices[:k]
        scores, order = scores[highest], order[highest]
        rows = torch.arange(len(part), device=part.device)
        own = part[rows, rows + start]
        part[rows, rows + start] = -torch.inf
        copied += int((own > part.amax(dim=1)).sum())
    return HeadMap(order // classes, order % classes, scores, copied / classes)
