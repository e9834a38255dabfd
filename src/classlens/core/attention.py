"""Attention weights and class logits: the closed-form gradient and the exact contribution of every head and token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from classlens.core.maps import Norm, compute_dtype, detached
from classlens.core.space import ClassSpace

Loss = Literal["cross_entropy", "logit", "double_softmax"]
LOSSES: tuple[Loss, ...] = get_args(Loss)


@dataclass(frozen=True, eq=False)
class Output:
    """What turns a sublayer's last projection into what is added to the residual stream.

    ``added = scale ⊙ raw`` (LayerScale; 1 if None) or ``added = norm(raw)`` (post-norm blocks);
    ``raw = weight @ inner(y) + bias``.
    """

    weight: Float[Tensor, "width inner"]
    bias: Float[Tensor, " width"] | None = None
    scale: Float[Tensor, " width"] | None = None
    norm: Norm | None = None
    inner: Norm | None = None
    """A norm of the joined heads (or hidden units) before the projection, as in EVA-02."""

    @classmethod
    def of(cls, projection: nn.Linear, **others: Any) -> Output:
        """A linear layer with what surrounds it: ``Output.of(block.proj, scale=block.gamma.detach())``."""
        return cls(projection.weight.detach(), detached(projection.bias), **others)

    def of_coefficients(self, x: Float[Tensor, "*rows inner"]) -> Float[Tensor, "*rows width"]:
        """What is added to the residual stream for these memory coefficients (taken after an inner norm)."""
        added = F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))
        if self.norm is not None:
            return self.norm(added)
        return added if self.scale is None else added * self.scale.to(x.dtype)


class Branches(Output):
    """Parallel sublayers as one: their outputs are summed, their heads (or hidden units) stand in a row.

    Put together when it is asked for, so that weights changed in place are never stale.
    """

    def __init__(self, parts: tuple[Output, ...]) -> None:
        object.__setattr__(self, "parts", parts)

    @property
    def weight(self) -> Float[Tensor, "width inner"]:
        parts: tuple[Output, ...] = self.parts  # type: ignore[attr-defined]
        return torch.cat([p.weight if p.scale is None else p.weight * p.scale[:, None] for p in parts], dim=1)

    @property
    def bias(self) -> Float[Tensor, " width"] | None:
        parts: tuple[Output, ...] = self.parts  # type: ignore[attr-defined]
        scaled = [(p.bias if p.scale is None else p.bias * p.scale) for p in parts if p.bias is not None]
        return torch.stack(scaled).sum(dim=0) if scaled else None


def loss_gradient(
    logits: Float[Tensor, "image query classes"], target: Int[Tensor, " image"], loss: Loss
) -> Float[Tensor, "image query classes"]:
    """``∂ℓ/∂z`` of the loss of the class of interest.

    ``cross_entropy``: softmax, then ``-log p_c`` (the paper's text). ``logit``: ``ℓ = -z_c``. ``double_softmax``: the
    cross-entropy of the softmax taken as logits (what the reference's code does).
    """
    hot = _one_hot(target, logits)
    if loss == "logit":
        return (-hot).expand_as(logits)
    p = logits.softmax(dim=-1)
    if loss == "cross_entropy":
        return p - hot
    g = p.softmax(dim=-1) - hot
    return p * (g - (p * g).sum(dim=-1, keepdim=True))


def contrast_gradient(
    logits: Float[Tensor, "image query classes"], target: Int[Tensor, " image"], against: Int[Tensor, " image"]
) -> Float[Tensor, "image query classes"]:
    """``∂ℓ/∂z`` of ``ℓ = z_against - z_target``: why this class rather than that."""
    return (_one_hot(against, logits) - _one_hot(target, logits)).expand_as(logits)


def _one_hot(target: Int[Tensor, " image"], logits: Float[Tensor, "image query classes"]) -> Tensor:
    return F.one_hot(target, logits.shape[-1]).to(logits.dtype)[:, None]


def class_gradient(
    space: ClassSpace,
    output: Output,
    *,
    added: Float[Tensor, "image query width"],
    raw: Float[Tensor, "image query width"] | None,
    joined: Float[Tensor, "image query inner"] | None = None,
    values: Float[Tensor, "image head token channel"],
    gradient: Float[Tensor, "image query classes"],
) -> Float[Tensor, "image head token"]:
    """``-∂ℓ/∂A[h, q, j]`` of one block, for the mean over queries ``q``, without autograd (design, section 4).

    ``ℓ`` is a loss of the logits ``head(norm(added[q]))``, and ``gradient`` its derivative by them (``loss_gradient``).
    ``raw`` is needed for post-norm blocks alone, ``joined`` (the heads before an inner norm) where there is such a
    norm.
    """
    added = added.to(compute_dtype(added.dtype))
    # v[h, j] · g_y[q, h] is linear in g_y, so the mean over queries is taken before the product with the values.
    pulled = gradient_of_heads(output, space.vjp(added, gradient), raw=raw, joined=joined)
    heads = pulled.view(len(pulled), values.shape[1], -1)
    return -torch.einsum("ihc,ihtc->iht", heads, values.to(pulled.dtype))


def gradient_of_heads(
    output: Output,
    gradient: Float[Tensor, "image query width"],
    *,
    raw: Float[Tensor, "image query width"] | None,
    joined: Float[Tensor, "image query inner"] | None,
) -> Float[Tensor, "image inner"]:
    """A gradient at what attention adds, pulled back to the joined heads; mean over queries."""
    if output.norm is not None:
        if raw is None:
            raise TypeError("a post-norm block needs the raw sublayer output")
        gradient = output.norm.vjp(raw.to(gradient.dtype), gradient)
    elif output.scale is not None:
        gradient = gradient * output.scale.to(gradient.dtype)
    weight = output.weight.to(gradient.dtype)
    if output.inner is None:
        return gradient.mean(dim=1) @ weight
    if joined is None:
        raise TypeError("a block with an inner norm needs the joined heads before it")
    return output.inner.vjp(joined.to(gradient.dtype), gradient @ weight).mean(dim=1)


@dataclass(frozen=True, eq=False)
class Functional:
    """A class logit as a linear function of the residual stream, scales frozen: see ``ClassSpace.frozen``."""

    direction: Float[Tensor, "image width"]
    weights: Float[Tensor, "image query"]

    def __call__(self, vectors: Float[Tensor, "image query width"]) -> Float[Tensor, " image"]:
        """What vectors added to the pooled tokens are worth in the logit."""
        return torch.einsum("iqw,iw,iq->i", vectors.to(self.direction.dtype), self.direction, self.weights)

    def through(
        self,
        output: Output,
        raw: Float[Tensor, "image query width"] | None,
        joined: Float[Tensor, "image query inner"] | None = None,
    ) -> tuple[Functional, Float[Tensor, " image"]]:
        """The same function of what enters the sublayer's last projection, and what the biases on the way are worth."""
        direction, weights = self.direction, self.weights
        bias = direction.new_zeros(len(direction))
        if output.norm is not None:
            if raw is None:
                raise TypeError("a post-norm block needs the raw sublayer output")
            if output.norm.bias is not None:
                bias = bias + direction @ output.norm.bias.to(direction.dtype) * weights.sum(dim=1)
            weights = weights * output.norm.inverse_scale(raw.to(direction.dtype))[..., 0]
            direction = output.norm.pull(direction)
        elif output.scale is not None:
            direction = direction * output.scale.to(direction.dtype)
        if output.bias is not None:
            bias = bias + direction @ output.bias.to(direction.dtype) * weights.sum(dim=1)
        direction = direction @ output.weight.to(direction.dtype)
        if output.inner is not None:
            if joined is None:
                raise TypeError("a block with an inner norm needs the joined heads before it")
            if output.inner.bias is not None:
                bias = bias + direction @ output.inner.bias.to(direction.dtype) * weights.sum(dim=1)
            weights = weights * output.inner.inverse_scale(joined.to(direction.dtype))[..., 0]
            direction = output.inner.pull(direction)
        return Functional(direction, weights), bias


def head_contributions(
    functional: Functional,
    *,
    attention: Float[Tensor, "image head query token"],
    values: Float[Tensor, "image head token channel"],
) -> Float[Tensor, "image head token"]:
    """What each token adds to the logit through each head: ``Σ_q weights[q] · A[h, q, j] · (v[h, j] · W_O[h]ᵀ u)``.

    ``functional`` is already pulled back through the output projection (``Functional.through``), so that its
    direction is ``W_O[h]ᵀ u`` of all heads, joined.
    """
    dtype = functional.direction.dtype
    heads = functional.direction.view(len(values), values.shape[1], -1)
    worth = torch.einsum("ihc,ihtc->iht", heads, values.to(dtype))
    return worth * torch.einsum("iq,ihqt->iht", functional.weights, attention.to(dtype))
