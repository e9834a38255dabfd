"""Chefer's method: gradient times attention, carried through the blocks."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.explain.batching import explain_in_groups
from classlens.explain.method import Method
from classlens.explain.queries import Query, check_query, query_rows
from classlens.forward.differentiable import differentiable_pass
from classlens.forward.recording import Recording


def chefer(
    recording: Recording,
    target: Int[Tensor, " image"],
    *,
    against: Int[Tensor, " image"] | None = None,
    query: Query = None,
) -> Float[Tensor, "image token"]:
    """Gradient times attention, carried through the blocks: ``R ← R + mean_h (∇A_b ⊙ A_b)⁺ R``, from ``R = I``.

    ``∇A`` is the gradient of the class logit, less the logit of ``against``; the row of the query is the map, at least
    0. This is not the LRP-based
    method of the same authors (CVPR 2021). Raises ClasslensError for a head that pools by attention, unless ``query``
    is given. Source: Chefer, Gur and Wolf, *Generic Attention-model Explainability*, ICCV 2021, equations 5 and 6 for
    self-attention.
    """
    check_query(recording, query)

    def explain(images: slice) -> Tensor:
        graph = differentiable_pass(recording.view, recording.pixels[images])
        recording.require_same_logits(graph.logits, images)
        value = graph.logit(target[images], None if against is None else against[images])
        gradients = graph.gradients(value, [part for block in graph.attention for part in block])
        count = recording.tokens.count
        relevance = torch.eye(count, dtype=recording.dtype, device=graph.logits.device)
        relevance = relevance.expand(len(graph.logits), -1, -1)
        for block in graph.attention:
            weights = torch.cat(block, dim=1).detach().to(recording.dtype)
            gradient = torch.cat([gradients.pop(0) for _ in block], dim=1).to(recording.dtype)
            relevance = relevance + (weights * gradient).clamp_min(0).mean(dim=1) @ relevance
        return query_rows(recording, images, query, relevance)

    return explain_in_groups(recording, explain)


CHEFER = Method(
    chefer,
    ("image", "token"),
    label="Chefer",
    about="Gradient times attention, carried through the blocks, `R ← R + mean_h (∇A ⊙ A)⁺ R`.",
    source="Chefer, Gur and Wolf, ICCV 2021",
    needs=("attention weights", "gradients"),
)
