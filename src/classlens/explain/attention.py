"""Attention itself as an explanation: raw, and rolled out over blocks. It knows of no class."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.explain.batching import over_images
from classlens.explain.queries import Query, check_rows, rows_of
from classlens.forward.attention import attention_weights
from classlens.forward.recording import Recording


def attention(
    recording: Recording, target: Int[Tensor, " image"], *, query: Query = None
) -> Float[Tensor, "image token"]:
    """Raw attention of the last block, mean over heads: ``mean_h A[h, q, j]``, at least 0.

    ``trace.explain(method="attention")``. ``q`` is ``[CLS]``, or the mean over the tokens that the head pools. Raises
    ClasslensError for a head that pools by attention, unless ``query`` is given. Source: Chefer, Gur and
    Wolf, *Generic Attention-model Explainability*, ICCV 2021, section 4 (raw attention, a baseline).
    """
    check_rows(recording, query)
    return over_images(recording, lambda part: rows_of(recording, query, _weights(recording, part)[-1]))


def rollout(
    recording: Recording, target: Int[Tensor, " image"], *, query: Query = None
) -> Float[Tensor, "image token"]:
    """Attention rollout: ``R = Π_b (mean_h A_b + I) / 2``, the later blocks to the left; the row of the query.

    ``trace.explain(method="rollout")``. Rows sum to 1 over all tokens. Source: Abnar and Zuidema, *Quantifying
    Attention Flow in Transformers*, ACL 2020, section 3. Raises ClasslensError as ``attention`` does.
    """
    check_rows(recording, query)

    def rolled(part: slice) -> Tensor:
        found: Tensor | None = None
        for weights in _weights(recording, part):
            mixed = (weights + torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)) / 2
            found = mixed if found is None else mixed @ found
        assert found is not None
        return rows_of(recording, query, found)

    return over_images(recording, rolled)


def _weights(recording: Recording, part: slice) -> list[Tensor]:
    """Mean over heads, ``[image, query, token]`` of each block, in the precision of results."""
    return [
        weights.to(recording.dtype).mean(dim=1) for weights in attention_weights(recording.view, recording.pixels[part])
    ]
