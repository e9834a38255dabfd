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

    Source: the paper, section 4.1; the closed form of the design, section 4.
    """
    view, tokens = recording.view, recording.tokens
    images = len(target)
    heads = view.blocks[0].heads
    grid = tokens.image
    shape = (images, len(view.blocks), heads, grid.stop - grid.start)
    result = torch.empty(shape, dtype=compute_dtype(view.dtype))
    queries = len(range(*view.pooled.indices(tokens.count)))
    step = max(1, _ROWS // queries)
    for start in range(0, images, step):
        part = slice(start, start + step)
        for number, block in enumerate(view.blocks):
            result[part, number] = class_gradient(
                view.space,
                block.attn,
                added=recording.states("attn_out", number)[part, view.pooled],
                raw=recording.inside("attn_raw", number, part, view.pooled),
                joined=recording.inside("attn_joined", number, part, view.pooled),
                values=recording.states("values", number)[part, :, grid],
                target=target[part],
                loss=loss,
            ).cpu()
    return result
