"""Attention weights as an explanation: raw, and rolled out over blocks. Both are the same for every class."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.explain.attention_rows import attention_rows, every_query
from classlens.explain.method import Method
from classlens.explain.queries import Query, check_query, query_positions, query_rows
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
    positions = query_positions(recording, query)
    last = len(recording.view.blocks) - 1
    maps = [
        query_rows(recording, images, query, weights.mean(dim=1), positions).cpu()
        for images, _, weights in attention_rows(recording, positions, [last])
    ]
    return torch.cat(maps)


def rollout(
    recording: Recording, target: Int[Tensor, " image"], *, query: Query = None
) -> Float[Tensor, "image token"]:
    """Attention rollout: ``R = Π_b (mean_h A_b + I) / 2``, the later blocks to the left; the row of the query.

    Rows sum to 1 over all tokens. Raises ClasslensError as ``attention`` does. Source: Abnar and Zuidema, *Quantifying
    Attention Flow in Transformers*, ACL 2020, section 3.
    """
    check_query(recording, query)
    maps: list[Tensor] = []
    rolled = torch.empty(())
    blocks = range(len(recording.view.blocks))
    for images, block, weights in attention_rows(recording, every_query(recording), blocks):
        mixed = (weights.mean(dim=1) + torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)) / 2
        rolled = mixed if block == 0 else mixed @ rolled
        if block == blocks[-1]:
            maps.append(query_rows(recording, images, query, rolled).cpu())
    return torch.cat(maps)


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
    every_query=True,
)
