"""Distance and entropy of attention, from its weights."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def attention_distance(
    weights: Float[Tensor, "image head token token"], grid: tuple[int, int]
) -> Float[Tensor, "image head"]:
    """Mean distance of attended image tokens from the query, in token widths, weighted by attention.

    ``1/n Σ_q Σ_j A_qj |x_q - x_j| / Σ_j A_qj`` over the ``n`` image tokens, which come last in the sequence. Source:
    the attention distance of Dosovitskiy et al., *An Image is Worth 16x16 Words*, ICLR 2021.
    """
    rows, columns = grid
    prefix = weights.shape[-1] - rows * columns
    weights = weights[..., prefix:, prefix:]
    positions = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).to(weights)
    distances = torch.cdist(positions, positions, compute_mode="donot_use_mm_for_euclid_dist")
    total = weights.sum(dim=-1).clamp_min(torch.finfo(weights.dtype).tiny)
    return ((weights * distances).sum(dim=-1) / total).mean(dim=-1)


def attention_entropy(weights: Float[Tensor, "image head query token"]) -> Float[Tensor, "image head"]:
    """Entropy ``-Σ_j A_qj ln A_qj`` of the attention of a query, mean over queries, in nats."""
    logarithms = weights.clamp_min(torch.finfo(weights.dtype).tiny).log()
    entropy: Tensor = -torch.einsum("ihqt,ihqt->ihq", weights, logarithms).mean(dim=-1)
    return entropy
