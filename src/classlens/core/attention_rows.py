"""Attention weights of some queries, from the tensors that fused attention takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

Scores = Callable[[Mapping[str, Tensor], Tensor], Tensor]
"""From tensors by name, and positions of queries, to what the softmax takes, ``[image, head, query, token]``."""


def dot_products(
    passed: Mapping[str, Tensor], queries: Int[Tensor, " query"]
) -> Float[Tensor, "image head query token"]:
    """``q · kᵀ / sqrt(channel)`` of ``queries`` and ``keys``, plus ``attn_bias`` if it passed.

    ``[image, head, token, channel]``; each head of fewer ``keys`` serves a group of consecutive heads of queries.
    """
    return scaled_products(passed["queries"][:, :, queries], passed["keys"], passed.get("attn_bias"), queries)


def scaled_products(
    chosen: Float[Tensor, "image head query channel"],
    keys: Float[Tensor, "image groups token channel"],
    bias: Tensor | None,
    queries: Int[Tensor, " query"],
) -> Float[Tensor, "image head query token"]:
    """``q · kᵀ / sqrt(channel)`` of chosen queries, plus a bias of all of them."""
    groups = chosen.shape[1] // keys.shape[1]
    keys = keys.repeat_interleave(groups, dim=1) if groups > 1 else keys
    return _with_bias((chosen * chosen.shape[-1] ** -0.5) @ keys.mT, bias, queries)


def projected_products(
    x: Float[Tensor, "image token width"],
    queries: Int[Tensor, " query"],
    *,
    heads: int,
    query: tuple[Float[Tensor, "unit width"], Float[Tensor, " unit"] | None],
    key: Float[Tensor, "unit width"],
    bias: Tensor | None = None,
) -> Float[Tensor, "image head query token"]:
    """``dot_products`` from the input of attention and the projections of queries and keys.

    A bias of the keys adds the same to all scores of a query, which the softmax does not see. For a few queries the
    keys are not computed: ``q · (W_K x) = (q W_K) · x`` takes fewer products.
    """
    weight, constant = (None if part is None else part.to(x.dtype) for part in query)
    assert weight is not None
    key = key.to(x.dtype)
    chosen = F.linear(x[:, queries], weight, constant).unflatten(-1, (heads, -1)).transpose(1, 2)
    if heads * len(queries) >= x.shape[-1]:
        keys = F.linear(x, key).unflatten(-1, (heads, -1)).transpose(1, 2)
        return scaled_products(chosen, keys, bias, queries)
    by_input = chosen @ key.unflatten(0, (heads, -1)) * chosen.shape[-1] ** -0.5
    return _with_bias((by_input.flatten(1, 2) @ x.mT).unflatten(1, (heads, -1)), bias, queries)


def _with_bias(scores: Tensor, bias: Tensor | None, queries: Tensor) -> Tensor:
    return scores if bias is None else scores.add(bias.to(scores.dtype)[..., queries, :])
