"""Class logits at each depth, reduced to the top classes, the class of interest, and how sure the model is."""

from __future__ import annotations

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

    Examples:
        >>> facts = depth_facts(torch.tensor([[[0.0, 1.0, 1.0], [2.0, 0.0, 1.0]]]), torch.tensor([2]), k=2)
        >>> facts.top.tolist(), facts.rank.tolist()
        ([[[1, 2], [0, 2]]], [[0, 1]])
    """
    if not bool(torch.isfinite(logits.sum(dim=-1)).all()):
        raise not_finite()
    top = top_classes(logits, k)
    last = top[:, -1:].expand(-1, logits.shape[1], -1)
    logit = logits.gather(2, target[:, None, None].expand(-1, logits.shape[1], 1))
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
        (logits > logit).sum(dim=-1),
        logit[..., 0],
        (normalizer.log() + largest)[..., 0],
        entropy[..., 0],
    )


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
