"""The class gradient: the paper's explanation, in closed form, for every block and head."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.attention import Loss, class_gradient
from classlens.core.maps import compute_dtype
from classlens.hooks.recording import Recording

# Rows of logits held at once while a model that averages its tokens is explained: 64 MiB for 1,000 classes.
_ROWS = 16_384


def explain(
    recording: Recording, target: Int[Tensor, " image"], *, loss: Loss
) -> Float[Tensor, "image block head token"]:
    """``-∂ℓ/∂A[b, h, q, j]`` for image tokens ``j``; ``q`` is ``[CLS]``, or the mean over the tokens the head pools.

    A model with several readouts (two heads, or one in two halves) is explained by their weighted sum, each with its
    own class space and queries. Source: the paper, section 4.1; the closed form of the design, section 4.
    """
    view, tokens = recording.view, recording.tokens
    grid = tokens.image
    shape = (len(target), len(view.blocks), view.blocks[0].heads, grid.stop - grid.start)
    result = torch.zeros(shape, dtype=compute_dtype(view.dtype))
    for readout in view.readouts:
        queries = len(range(*readout.pooled.indices(tokens.count)))
        step = max(1, _ROWS // queries)
        for start in range(0, len(target), step):
            part = slice(start, start + step)
            for number, block in enumerate(view.blocks):
                found = class_gradient(
                    readout.space,
                    block.attn,
                    added=recording.states("attn_out", number)[part, readout.pooled],
                    raw=recording.inside("attn_raw", number, part, readout.pooled),
                    joined=recording.inside("attn_joined", number, part, readout.pooled),
                    values=recording.states("values", number)[part, :, grid],
                    target=target[part],
                    loss=loss,
                )
                result[part, number] += readout.weight * found.cpu()
    return result
