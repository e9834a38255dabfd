"""Key/value memories of the sublayers: the classes of their value vectors, and the memories that a token uses.

A memory is a unit of its sublayer: a hidden unit of the MLP, or an input channel of attention's output projection.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from classlens.core.attention import Output
from classlens.core.steps import compute_dtype

STRONGEST = 5
"""Number of memories of a token, a class or a value vector that count (the paper, section 5)."""

# Class scores of value vectors held at once: 64 MiB in float32.
_SCRATCH = 2**24


class Memories(NamedTuple):
    """The classes of the value vectors of one sublayer, from parameters alone.

    ``by_class``: the units whose value vectors score highest for each class. ``by_value``: the classes with the highest
    scores for each unit, best first. ``agreement``: class-value agreement, the largest cosine between a class and any
    value vector, -1 to 1.
    """

    by_class: Int[Tensor, "classes strongest"]
    by_value: Int[Tensor, "unit strongest_classes"]
    agreement: Float[Tensor, " classes"]


def memories(embedding: Float[Tensor, "classes width"], output: Output) -> Memories:
    """Class scores ``E · (γ ⊙ W_out)``, reduced, in bounded RAM for any number of classes and units.

    Scores use raw values and raw ``E``, without a norm weight or bias. The order of equal scores is not defined.
    """
    embedding, values = embedding_and_values(embedding, output)
    classes, units = len(embedding), values.shape[1]
    class_lengths, value_lengths = embedding.norm(dim=1), values.norm(dim=0)
    agreement = embedding.new_full((classes,), -torch.inf)
    best_scores = embedding.new_empty(classes, 0)
    best_units = torch.empty(classes, 0, dtype=torch.int64, device=embedding.device)
    by_value = []
    step = max(1, _SCRATCH // classes)
    for start in range(0, units, step):
        part = slice(start, min(start + step, units))
        scores = embedding @ values[:, part]
        by_value.append(_highest(scores.T).indices)
        highest = _highest(scores)
        order = _highest(torch.cat([best_scores, highest.values], dim=1))
        best_units = torch.cat([best_units, highest.indices + start], dim=1).gather(1, order.indices)
        best_scores = order.values
        # The cosine of a vector of zeros is 0.
        lengths = class_lengths[:, None] * value_lengths[part]
        cosines = scores / lengths.clamp_min(torch.finfo(scores.dtype).tiny)
        agreement = torch.maximum(agreement, cosines.amax(dim=1))
    return Memories(best_units, torch.cat(by_value), agreement)


def memory_scores(
    embedding: Float[Tensor, "classes width"],
    output: Output,
    categories: Int[Tensor, " #pairs"] | slice,
    units: Int[Tensor, " #pairs"] | slice,
) -> tuple[Float[Tensor, " scores"], Float[Tensor, " scores"]]:
    """Class scores and cosines of pairs of a class and a unit; ``slice(None)`` pairs all classes or all units."""
    embedding, values = embedding_and_values(embedding, output)
    rows, vectors = embedding[categories], values[:, units].T
    scores = (rows * vectors).sum(dim=1)
    lengths = rows.norm(dim=1) * vectors.norm(dim=1)
    return scores, scores / lengths.clamp_min(torch.finfo(scores.dtype).tiny)


def best_classes(
    embedding: Float[Tensor, "classes width"], output: Output, units: Int[Tensor, " unit"]
) -> Int[Tensor, " unit"]:
    """The class that the value vector of each of these units scores highest, in bounded RAM."""
    embedding, values = embedding_and_values(embedding, output)
    parts = units.split(max(1, _SCRATCH // len(embedding)))
    return torch.cat([(embedding @ values[:, part]).argmax(dim=0) for part in parts])


def embedding_and_values(
    embedding: Float[Tensor, "classes width"], output: Output
) -> tuple[Float[Tensor, "classes width"], Float[Tensor, "width unit"]]:
    """Class embedding and value vectors ``γ ⊙ W_out``, in the precision of projection."""
    dtype = compute_dtype(embedding.dtype)
    values = output.weight.detach().to(dtype)
    if output.scale is not None:
        values = values * output.scale.to(dtype)[:, None]
    return embedding.detach().to(dtype), values


def _highest(scores: Float[Tensor, "rows columns"]) -> torch.return_types.topk:
    """The highest entries of each row, best first."""
    return torch.topk(scores, min(STRONGEST, scores.shape[1]), dim=1)


def strongest(coefficients: Float[Tensor, "rows unit"]) -> Int[Tensor, "rows strongest"]:
    """The units with the largest signed coefficients of each token."""
    return coefficients.topk(min(STRONGEST, coefficients.shape[1]), dim=1, sorted=False).indices


def agree_by_class(
    used: Int[Tensor, "rows strongest"], memories: Memories, target: Int[Tensor, " rows"]
) -> Bool[Tensor, " rows"]:
    """Whether a token's strongest units include one of the highest-scoring units of its class (the reference)."""
    return (used[:, :, None] == memories.by_class[target][:, None, :]).flatten(1).any(dim=1)


def agree_by_value(
    used: Int[Tensor, "rows strongest"], memories: Memories, target: Int[Tensor, " rows"]
) -> Bool[Tensor, " rows"]:
    """Whether the class is among the best classes of any of a token's strongest units (the paper's text)."""
    return (memories.by_value[used] == target[:, None, None]).flatten(1).any(dim=1)


def match_top1(
    used: Int[Tensor, "rows strongest"], memories: Memories, top1: Int[Tensor, " rows"]
) -> Bool[Tensor, " rows"]:
    """Whether the sublayer's top-1 class is that of any of its strongest units; otherwise it is a composition."""
    return (memories.by_value[:, 0][used] == top1[:, None]).any(dim=1)
