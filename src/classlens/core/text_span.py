"""TextSpan: the texts whose embeddings explain most of what varies in a head's outputs over images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class TextSpan(NamedTuple):
    """Chosen texts, the first explains most; -1 where nothing is left to explain.

    ``explained`` is the share of the outputs' variance in the span of the texts so far; NaN where nothing varies.
    """

    text: Int[Tensor, " rank"]
    explained: Float[Tensor, " rank"]


def text_span(outputs: Float[Tensor, "image width"], texts: Float[Tensor, "text width"], k: int) -> TextSpan:
    """Choose ``k`` texts, one after another, in float64.

    Outputs are centered over images, and texts projected onto their span. Each time, the text is chosen whose inner
    product with the outputs varies most; its direction is then taken out of outputs and texts. Source: Gandelsman,
    Efros and Steinhardt, *Interpreting CLIP's Image Representation via Text-Based Decomposition*, ICLR 2024.
    """
    rest = outputs.double() - outputs.double().mean(dim=0)
    total, span = rest.square().sum(), _row_space(rest)
    left = (texts.double() @ span.T) @ span
    smallest = 1e-12 * left.norm(dim=1).amax().clamp_min(1e-300)
    chosen = torch.full((k,), -1, dtype=torch.int64)
    explained = torch.full((k,), torch.nan, dtype=torch.float64)
    for rank in range(k):
        variance = (rest @ left.T).square().sum(dim=0)
        # A text that the earlier ones span is left with rounding errors.
        variance = variance.masked_fill(left.norm(dim=1) <= smallest, -1)
        best = int(variance.argmax())
        if total > 0 and variance[best] > 0:
            direction = left[best] / left[best].norm()
            rest = rest - torch.outer(rest @ direction, direction)
            left = left - torch.outer(left @ direction, direction)
            left[best] = 0
            chosen[rank] = best
        if total > 0:
            explained[rank] = 1 - rest.square().sum() / total
    return TextSpan(chosen, explained)


def _row_space(x: Float[Tensor, "image width"]) -> Float[Tensor, "basis width"]:
    """An orthonormal basis of the rows."""
    _, sizes, rows = torch.linalg.svd(x, full_matrices=False)
    smallest = sizes.amax() * max(x.shape) * torch.finfo(x.dtype).eps
    basis: Tensor = rows[sizes > smallest]
    return basis
