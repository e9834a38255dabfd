"""Key/value memories of the sublayers: which classes their value vectors stand for, and which of them a token uses."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from classlens.core.attention import Output
from classlens.core.maps import compute_dtype

STRONGEST = 5
"""How many memories of a token, a class or a value vector are looked at (paper, section 5)."""

# Class scores of value vectors held at once: 64 MiB in float32.
_SCRATCH = 2**24


class Memories(NamedTuple):
    """What the value vectors of one sublayer stand for, from parameters alone.

    ``by_class``: the memories whose value vectors score highest for each class. ``by_value``: the classes that score
    highest for each memory, the best first. ``agreement``: class-value agreement, the largest cosine between a class
    and any value vector, -1 to 1.
    """

    by_class: Int[Tensor, "classes strongest"]
    by_value: Int[Tensor, "memory strongest"]
    agreement: Float[Tensor, " classes"]


def memories(embedding: Float[Tensor, "classes width"], output: Output) -> Memories:
    """Class scores ``E · (γ ⊙ W_out)``, reduced; memory is bounded whatever the number of classes and memories.

    Scores are of raw values and raw ``E``: no norm weight, no bias. Among equal scores any may be taken.
    """
    embedding, values = _vectors(embedding, output)
    classes, count = len(embedding), values.shape[1]
    lengths = embedding.norm(dim=1), values.norm(dim=0)
    agreement = embedding.new_full((classes,), -torch.inf)
    best = embedding.new_empty(classes, 0)
    where = torch.empty(classes, 0, dtype=torch.int64, device=embedding.device)
    by_value = []
    step = max(1, _SCRATCH // classes)
    for start in range(0, count, step):
        part = slice(start, min(start + step, count))
        scores = embedding @ values[:, part]
        by_value.append(_highest(scores.T).indices)
        found = _highest(scores)
        both = torch.cat([best, found.values], dim=1)
        order = _highest(both)
        where = torch.cat([where, found.indices + start], dim=1).gather(1, order.indices)
        best = order.values
        # A vector of zeros points nowhere: its cosine with anything is 0.
        cosine = scores / (lengths[0][:, None] * lengths[1][part]).clamp_min(torch.finfo(scores.dtype).tiny)
        agreement = torch.maximum(agreement, cosine.amax(dim=1))
    return Memories(where, torch.cat(by_value), agreement)


def memory_scores(
    embedding: Float[Tensor, "classes width"],
    output: Output,
    categories: Int[Tensor, " pairs"] | slice,
    places: Int[Tensor, " pairs"] | slice,
) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]]:
    """Class scores and cosines of pairs of a class and a memory; all classes or all memories where a slice says so."""
    embedding, values = _vectors(embedding, output)
    rows, vectors = embedding[categories], values[:, places].T
    scores = (rows * vectors).sum(dim=1)
    lengths = rows.norm(dim=1) * vectors.norm(dim=1)
    return scores, scores / lengths.clamp_min(torch.finfo(scores.dtype).tiny)


def _vectors(
    embedding: Float[Tensor, "classes width"], output: Output
) -> tuple[Float[Tensor, "classes width"], Float[Tensor, "width memory"]]:
    """Class prototypes and value vectors ``γ ⊙ W_out``, in the precision of projection."""
    dtype = compute_dtype(embedding.dtype)
    values = output.weight.detach().to(dtype)
    if output.scale is not None:
        values = values * output.scale.to(dtype)[:, None]
    return embedding.detach().to(dtype), values


def _highest(scores: Float[Tensor, "rows columns"]) -> torch.return_types.topk:
    """The highest of each row, the best first."""
    return torch.topk(scores, min(STRONGEST, scores.shape[1]), dim=1)


def strongest(coefficients: Float[Tensor, "rows memory"]) -> Int[Tensor, "rows strongest"]:
    """The memories with the largest signed coefficients of each token."""
    return coefficients.topk(min(STRONGEST, coefficients.shape[1]), dim=1, sorted=False).indices


def agree_by_class(
    used: Int[Tensor, "rows strongest"], known: Memories, target: Int[Tensor, " rows"]
) -> Bool[Tensor, " rows"]:
    """Whether a token's strongest memories include one of those that score highest for its class (the reference)."""
    return (used[:, :, None] == known.by_class[target][:, None, :]).flatten(1).any(dim=1)


def agree_by_value(
    used: Int[Tensor, "rows strongest"], known: Memories, target: Int[Tensor, " rows"]
) -> Bool[Tensor, " rows"]:
    """Whether the class is among the best classes of any of a token's strongest memories (the paper's text)."""
    return (known.by_value[used] == target[:, None, None]).flatten(1).any(dim=1)


def match_top1(
    used: Int[Tensor, "rows strongest"], known: Memories, top1: Int[Tensor, " rows"]
) -> Bool[Tensor, " rows"]:
    """Whether the sublayer's top-1 class is that of any of its strongest memories; where not, it is a composition."""
    return (known.by_value[:, 0][used] == top1[:, None]).any(dim=1)
