"""Class logits at each depth, reduced to the top classes, the class of interest, and how sure the model is."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.errors import not_finite


class DepthFacts(NamedTuple):
    """The reduced logits of images after each depth.

    ``top``: the classes with the largest logits, the lowest index of a tie first; ``top_logit``: their logits.
    ``final_logit``: the logits of the top classes of the last depth. ``rank`` (classes with a strictly larger logit)
    and ``logit``: of the class of interest. ``logsumexp``: of all logits, so that a log probability is a logit minus
    it. ``entropy``: of their softmax, in nats.
    """

    top: Int[Tensor, "image depth place"]
    top_logit: Float[Tensor, "image depth place"]
    final_logit: Float[Tensor, "image depth place"]
    rank: Int[Tensor, "image depth"]
    logit: Float[Tensor, "image depth"]
    logsumexp: Float[Tensor, "image depth"]
    entropy: Float[Tensor, "image depth"]


def depth_facts(logits: Float[Tensor, "image depth classes"], target: Int[Tensor, " image"], k: int) -> DepthFacts:
    """Reduce logits to ``DepthFacts`` with ``k`` top classes; raises ClasslensError for logits that are not finite.

    An image whose class of interest is -1 has none: its ``rank`` is -1 and its ``logit`` NaN.

    Examples:
        >>> facts = depth_facts(torch.tensor([[[0.0, 1.0, 1.0], [2.0, 0.0, 1.0]]]), torch.tensor([2]), k=2)
        >>> facts.top.tolist(), facts.rank.tolist()
        ([[[1, 2], [0, 2]]], [[0, 1]])
    """
    if not bool(torch.isfinite(logits.sum(dim=-1)).all()):
        raise not_finite()
    top = top_classes(logits, k)
    last = top[:, -1:].expand(-1, logits.shape[1], -1)
    logit = logit_of(logits, target)
    largest = logits.amax(dim=-1, keepdim=True)
    # Shifted by the largest, so that the entropy of a sure model keeps its digits.
    shifted = logits - largest
    total = shifted.exp()
    normalizer = total.sum(dim=-1, keepdim=True)
    entropy = normalizer.log() - (total * shifted).sum(dim=-1, keepdim=True) / normalizer
    return DepthFacts(
        top,
        logits.gather(2, top),
        logits.gather(2, last),
        (logits > logit[..., None]).sum(dim=-1).masked_fill((target < 0)[:, None], -1),
        logit,
        (normalizer.log() + largest)[..., 0],
        entropy[..., 0],
    )


def logit_of(
    logits: Float[Tensor, "image depth classes"], target: Int[Tensor, " image"]
) -> Float[Tensor, "image depth"]:
    """The logit of one class of each image; NaN for class -1.

    Examples:
        >>> logit_of(torch.tensor([[[3.0, 5.0]], [[7.0, 9.0]]]), torch.tensor([1, -1]))
        tensor([[5.],
                [nan]])
    """
    found = logits.gather(2, target.clamp(min=0)[:, None, None].expand(-1, logits.shape[1], 1))[..., 0]
    return found.masked_fill((target < 0)[:, None], torch.nan)


def group_logits(
    logits: Float[Tensor, "*rows classes"], groups: Int[Tensor, " classes"]
) -> Float[Tensor, "*rows groups"]:
    """Logits of groups of classes, whose softmax is the mean probability within each group, renormalized.

    ``groups`` is the group of each class, from 0; classes of none have -1. Source: Hu, Lepori and Franke, 2025, with
    the 16 entry-level categories of ImageNet.

    Examples:
        >>> group_logits(torch.tensor([[0.1, 0.3, 0.2, 0.4]]).log(), torch.tensor([0, 0, 1, -1])).softmax(-1)
        tensor([[0.5000, 0.5000]])
    """
    parts = []
    for group in range(int(groups.max()) + 1):
        members = logits[..., groups == group]
        parts.append(members.logsumexp(dim=-1) - math.log(members.shape[-1]))
    return torch.stack(parts, dim=-1)


def top_classes(logits: Float[Tensor, "*rows classes"], k: int) -> Int[Tensor, "*rows place"]:
    """The ``k`` classes with the largest logits of each row, the lowest index of a tie first.

    Examples:
        >>> top_classes(torch.tensor([[1.0, 3.0, 3.0, 0.0]]), 2)
        tensor([[1, 2]])
    """
    best = logits.topk(min(k + 1, logits.shape[-1]), dim=-1)
    top = best.indices[..., :k]
    # topk takes any of the classes that tie; a stable sort costs more and takes the first.
    tied = (best.values[..., 1:] == best.values[..., :-1]).any(dim=-1)
    if bool(tied.any()):
        top[tied] = logits[tied].sort(dim=-1, descending=True, stable=True).indices[..., :k]
    return top
