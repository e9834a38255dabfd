"""From attention weights to class logits: closed-form gradients, and exact contributions of heads and tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from classlens.core.arguments import checked
from classlens.core.space import ClassSpace
from classlens.core.steps import Norm, detached

Loss = Literal["cross_entropy", "logit", "double_softmax"]
LOSSES: tuple[Loss, ...] = get_args(Loss)


@checked
@dataclass(frozen=True, eq=False)
class Output:
    """The last projection of a sublayer, up to the residual add.

    ``added = scale ⊙ raw`` (LayerScale) or ``added = norm(raw)`` (post-norm blocks), with
    ``raw = weight @ inner(y) + bias``, where ``y`` are the joined heads or the hidden units.

    Args:
        weight: weight of the projection, ``[width, unit]``.
        bias: bias of the projection, ``[width]``.
        scale: LayerScale, ``[width]``; None for 1.
        norm: norm of the sublayer's output, in post-norm blocks.
        inner: norm before the projection, as in EVA-02.

    Examples:
        >>> import torch
        >>> output = Output(torch.eye(2), bias=torch.ones(2), scale=torch.tensor([1.0, 0.5]))
        >>> output.apply(torch.tensor([[1.0, 3.0]]))
        tensor([[2., 2.]])
    """

    weight: Float[Tensor, "width unit"]
    bias: Float[Tensor, " width"] | None = None
    scale: Float[Tensor, " width"] | None = None
    norm: Norm | None = None
    inner: Norm | None = None

    def _axis_sizes(self) -> dict[str, int]:
        width, unit = self.weight.shape
        return {"width": width, "unit": unit}

    @classmethod
    def of(cls, projection: nn.Linear, **surroundings: Any) -> Output:
        """The output of a linear layer.

        Args:
            projection: the last projection of a sublayer; its parameters are detached, not copied.
            surroundings: ``scale``, ``norm`` and ``inner``, as above.

        Returns:
            An ``Output``, as in ``Output.of(block.proj, scale=block.gamma.detach())``.
        """
        return cls(projection.weight.detach(), detached(projection.bias), **surroundings)

    def apply(self, x: Float[Tensor, "*rows unit"]) -> Float[Tensor, "*rows width"]:
        """The sublayer's addition to the residual stream.

        Args:
            x: memory coefficients, ``[..., unit]``, after an inner norm.

        Returns:
            The added vectors, ``[..., width]``.
        """
        added = F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))
        if self.norm is not None:
            return self.norm(added)
        return added if self.scale is None else added * self.scale.to(x.dtype)


class Branches(Output):
    """Parallel sublayers as one: their outputs are summed, their heads or hidden units concatenated.

    Weight and bias are computed on every access, so that they follow weights changed in place.
    """

    def __init__(self, parts: tuple[Output, ...]) -> None:
        object.__setattr__(self, "parts", parts)

    @property
    def weight(self) -> Float[Tensor, "width unit"]:
        parts: tuple[Output, ...] = self.parts  # type: ignore[attr-defined]
        return torch.cat([p.weight if p.scale is None else p.weight * p.scale[:, None] for p in parts], dim=1)

    @property
    def bias(self) -> Float[Tensor, " width"] | None:
        parts: tuple[Output, ...] = self.parts  # type: ignore[attr-defined]
        scaled = [(p.bias if p.scale is None else p.bias * p.scale) for p in parts if p.bias is not None]
        return torch.stack(scaled).sum(dim=0) if scaled else None


def loss_gradient(
    logits: Float[Tensor, "image query classes"], target: Int[Tensor, " image"], loss: Loss, *, sigmoid: bool = False
) -> Float[Tensor, "image query classes"]:
    """``∂ℓ/∂z`` of a loss ``ℓ`` of the class of interest.

    ``cross_entropy``: softmax, then ``-log p_c`` (the paper's text). ``logit``: ``ℓ = -z_c``. ``double_softmax``: the
    cross-entropy with the softmax as its logits (the reference's code). With ``sigmoid`` the cross-entropy is that of
    one label, ``-log σ(z_c)``.
    """
    hot = _one_hot(target, logits)
    if loss == "logit":
        return (-hot).expand_as(logits)
    if sigmoid:
        return hot * (logits.sigmoid() - 1)
    p = logits.softmax(dim=-1)
    if loss == "cross_entropy":
        return p - hot
    g = p.softmax(dim=-1) - hot
    return p * (g - (p * g).sum(dim=-1, keepdim=True))


def contrast_gradient(
    logits: Float[Tensor, "image query classes"], target: Int[Tensor, " image"], against: Int[Tensor, " image"]
) -> Float[Tensor, "image query classes"]:
    """``∂ℓ/∂z`` of ``ℓ = z_against - z_target``."""
    return (_one_hot(against, logits) - _one_hot(target, logits)).expand_as(logits)


def _one_hot(target: Int[Tensor, " image"], logits: Float[Tensor, "image query classes"]) -> Tensor:
    return F.one_hot(target, logits.shape[-1]).to(logits.dtype)[:, None]


def class_gradient(
    space: ClassSpace,
    output: Output,
    *,
    added: Float[Tensor, "image query width"],
    raw: Float[Tensor, "image query width"] | None,
    joined: Float[Tensor, "image query unit"] | None = None,
    values: Float[Tensor, "image head token channel"],
    gradient: Float[Tensor, "image query classes"],
) -> Float[Tensor, "image head token"]:
    """``-∂ℓ/∂A[h, q, j]`` of one block, averaged over queries ``q``, without autograd (the paper, section 4).

    ``ℓ`` is a loss of the logits ``head(norm(added[q]))``, ``gradient`` its derivative with respect to them
    (``loss_gradient``). ``∂ℓ/∂A[h, q, j] = v[h, j] · (W_O[h]ᵀ (γ ⊙ u[q]))`` with ``u[q]`` the gradient at ``added[q]``.
    Post-norm blocks need ``raw``, blocks with an inner norm need ``joined``, the heads before that norm.
    """
    # The product with the values is linear, so the mean over queries comes first.
    pulled = gradient_of_heads(output, space.vjp(added, gradient), raw=raw, joined=joined)
    heads = pulled.view(len(pulled), values.shape[1], -1)
    return -torch.einsum("ihc,ihtc->iht", heads, values.to(pulled.dtype))


def gradient_of_heads(
    output: Output,
    gradient: Float[Tensor, "image query width"],
    *,
    raw: Float[Tensor, "image query width"] | None,
    joined: Float[Tensor, "image query unit"] | None,
) -> Float[Tensor, "image unit"]:
    """The gradient at attention's output, pulled back to the joined heads and averaged over queries."""
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
    """A class logit as a linear function of the pooled tokens, with frozen scales: see ``ClassSpace.frozen``."""

    direction: Float[Tensor, "image width"]
    weights: Float[Tensor, "image query"]

    def __call__(self, vectors: Float[Tensor, "image query width"]) -> Float[Tensor, " image"]:
        """The contribution to the logit of vectors that are added to the pooled tokens."""
        return torch.einsum("iqw,iw,iq->i", vectors.to(self.direction.dtype), self.direction, self.weights)

    def through(
        self,
        output: Output,
        raw: Float[Tensor, "image query width"] | None,
        joined: Float[Tensor, "image query unit"] | None = None,
    ) -> tuple[Functional, Float[Tensor, " image"]]:
        """The same function of the input of a sublayer's last projection, and the contribution of its biases."""
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
    """Contribution of each token through each head: ``Σ_q weights[q] · A[h, q, j] · (v[h, j] · W_O[h]ᵀ u)``.

    ``functional`` is already pulled back through the output projection (``Functional.through``): its direction is
    ``W_O[h]ᵀ u`` for all heads, concatenated.
    """
    dtype = functional.direction.dtype
    heads = functional.direction.view(len(values), values.shape[1], -1)
    contributions = torch.einsum("ihc,ihtc->iht", heads, values.to(dtype))
    return contributions * torch.einsum("iq,ihqt->iht", functional.weights, attention.to(dtype))
