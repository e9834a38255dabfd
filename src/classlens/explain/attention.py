"""Attention weights as an explanation: raw, and rolled out over blocks. Both are the same for every class."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.explain.batching import explain_in_groups
from classlens.explain.method import Method
from classlens.explain.queries import Query, check_query, query_rows
from classlens.forward.differentiable import attention_weights
from classlens.forward.recording import Recording


def attention(
    recording: Recording, target: Int[Tensor, " image"], *, query: Query = None
) -> Float[Tensor, "image token"]:
    """Raw attention of the last block, mean over heads: ``mean_h A[h, q, j]``, at least 0.

    ``q`` is ``[CLS]``, or the mean over the tokens that the head pools. Raises ClasslensError for a head that pools by
    attention, unless ``query`` is given. Source: Chefer, Gur and Wolf, *Generic Attention-model Explainability*, ICCV
    2021, section 4 (raw attention, a baseline).
    """
    check_query(recording, query)

    def explain(images: slice) -> Tensor:
        return query_rows(recording, images, query, _mean_weights(recording, images)[-1])

    return explain_in_groups(recording, explain)


def rollout(
    recording: Recording, target: Int[Tensor, " image"], *, query: Query = None
) -> Float[Tensor, "image token"]:
    """Attention rollout: ``R = Π_b (mean_h A_b + I) / 2``, the later blocks to the left; the row of the query.

    Rows sum to 1 over all tokens. Raises ClasslensError as ``attention`` does. Source: Abnar and Zuidema, *Quantifying
    Attention Flow in Transformers*, ACL 2020, section 3.
    """
    check_query(recording, query)

    def explain(images: slice) -> Tensor:
        rolled: Tensor | None = None
        for weights in _mean_weights(recording, images):
            mixed = (weights + torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)) / 2
            rolled = mixed if rolled is None else mixed @ rolled
        assert rolled is not None
        return query_rows(recording, images, query, rolled)

    return explain_in_groups(recording, explain)


def _mean_weights(recording: Recording, images: slice) -> list[Float[Tensor, "image query token"]]:
    """Attention weights of each block, mean over heads, in the precision of results."""
    blocks, logits = attention_weights(recording.view, recording.pixels[images])
    recording.require_same_logits(logits, images)
    return [weights.to(recording.dtype).mean(dim=1) for weights in blocks]


ATTENTION = Method(
    attention,
    ("image", "token"),
    label="attention",
    about="Attention weights of the last block, mean over heads; the same for every class.",
    source="Chefer, Gur and Wolf, ICCV 2021 (a baseline)",
    color="#0072b2",
    of_class=False,
    needs=("attention weights",),
)
ROLLOUT = Method(
    rollout,
    ("image", "token"),
    label="rollout",
    about="Attention rollout, `Π_b (mean_h A_b + I) / 2`; the same for every class.",
    source="Abnar and Zuidema, ACL 2020",
    of_class=False,
    needs=("attention weights",),
)
