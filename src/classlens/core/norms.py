"""Lengths of token vectors, and tokens whose length stands out."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from classlens.core.steps import compute_dtype


def token_norms(states: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows"]:
    """L2 norms of vectors, in float32 at least.

    Examples:
        >>> token_norms(torch.tensor([[3.0, 4.0]]))
        tensor([5.])
    """
    norms: Tensor = states.to(compute_dtype(states.dtype)).norm(dim=-1)
    return norms


def large_norms(
    norms: Float[Tensor, "*rows token"], among: Bool[Tensor, "*rows token"], *, factor: float = 5.0
) -> Bool[Tensor, "*rows token"]:
    """Whether a norm is above ``median + factor · MAD`` of its row, both of the tokens ``among`` alone.

    MAD is the median absolute deviation from the median. A row without such tokens has no outliers.
    """
    values = norms.masked_fill(~among, torch.nan)
    median = values.nanquantile(0.5, dim=-1, keepdim=True)
    deviation = (values - median).abs().nanquantile(0.5, dim=-1, keepdim=True)
    return norms > median + factor * deviation
