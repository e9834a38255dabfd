"""From attention weights to class logits: closed-form gradients, and exact contributions of heads and tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Int
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


@dataclass(frozen=True, eq=False)
class Replaced:
    """Masks of what edits replaced between the joined heads, or hidden units, and a sublayer's output, by query.

    ``out`` and ``raw``: tokens whose output, or whose output before a post-norm, is a given vector. ``coefficients``
    and ``joined``: channels with a given value, before the projection or before an inner norm. None for nothing.
    """

    out: Bool[Tensor, "image query"] | None = None
    raw: Bool[Tensor, "image query"] | None = None
    coefficients: Bool[Tensor, "image query unit"] | None = None
    joined: Bool[Tensor, "image query unit"] | None = None


_NOTHING = Replaced()


def _without(mask: Bool[Tensor, "image query *unit"] | None, x: Tensor) -> Tensor:
    """``x`` with zeros where a mask holds; a mask of tokens holds for every channel."""
    if mask is None:
        return x
    return torch.where(mask if mask.ndim == 3 else mask[..., None], torch.zeros_like(x), x)


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
    replaced: Replaced | None = None,
) -> Float[Tensor, "image head token"]:
    """``-∂ℓ/∂A[h, q, j]`` of one block, averaged over queries ``q``, without autograd (the paper, section 4).

    ``ℓ`` is a loss of the logits ``head(norm(added[q]))``, ``gradient`` its derivative with respect to them
    (``loss_gradient``). ``∂ℓ/∂A[h, q, j] = v[h, j] · (W_O[h]ᵀ (γ ⊙ u[q]))`` with ``u[q]`` the gradient at ``added[q]``.
    Post-norm blocks need ``raw``, blocks with an inner norm need ``joined``, the heads before that norm.
    """
    # The product with the values is linear, so the mean over queries comes first.
    pulled = gradient_of_heads(output, space.vjp(added, gradient), raw=raw, joined=joined, replaced=replaced)
    heads = pulled.view(len(pulled), values.shape[1], -1)
    return -torch.einsum("ihc,ihtc->iht", heads, values.to(pulled.dtype))


def gradient_of_heads(
    output: Output,
    gradient: Float[Tensor, "image query width"],
    *,
    raw: Float[Tensor, "image query width"] | None,
    joined: Float[Tensor, "image query unit"] | None,
    replaced: Replaced | None = None,
) -> Float[Tensor, "image unit"]:
    """The gradient at attention's output, pulled back to the joined heads and averaged over queries.

    Heads have no part in what edits ``replaced``.
    """
    replaced = replaced or _NOTHING
    gradient = _without(replaced.out, gradient)
    if output.norm is not None:
        if raw is None:
            raise TypeError("a post-norm block needs the raw sublayer output")
        gradient = output.norm.vjp(raw.to(gradient.dtype), gradient)
    elif output.scale is not None:
        gradient = gradient * output.scale.to(gradient.dtype)
    weight, gradient = output.weight.to(gradient.dtype), _without(replaced.raw, gradient)
    if output.inner is None and replaced.coefficients is None:
        return gradient.mean(dim=1) @ weight
    pulled = _without(replaced.coefficients, gradient @ weight)
    if output.inner is None:
        return pulled.mean(dim=1)
    if joined is None:
        raise TypeError("a block with an inner norm needs the joined heads before it")
    return _without(replaced.joined, output.inner.vjp(joined.to(gradient.dtype), pulled)).mean(dim=1)


@dataclass(frozen=True, eq=False)
class Functional:
    """A class logit as a linear function of the pooled tokens, with frozen scales: see ``ClassSpace.frozen``.

    Queries share one ``direction``; where edits replaced something at some of them, each has its own.
    """

    direction: Float[Tensor, "image directions width"]
    weights: Float[Tensor, "image query"]

    def __call__(self, vectors: Float[Tensor, "image query width"]) -> Float[Tensor, " image"]:
        """The contribution to the logit of vectors that are added to the pooled tokens."""
        vectors = vectors.to(self.direction.dtype)
        if self.direction.shape[1] == 1:
            products = (vectors @ self.direction.mT)[..., 0]
        else:
            products = (vectors * self.direction).sum(dim=-1)
        return (products * self.weights).sum(dim=1)

    def by_channel(self, vectors: Float[Tensor, "image query width"]) -> Float[Tensor, "image width"]:
        """The contribution to the logit of each channel of such vectors."""
        vectors = vectors.to(self.direction.dtype)
        if self.direction.shape[1] == 1:
            return self.direction[:, 0] * torch.einsum("iq,iqc->ic", self.weights, vectors)
        return torch.einsum("iq,iqc,iqc->ic", self.weights, self.direction, vectors)

    def of_constant(self, vector: Float[Tensor, " width"] | None) -> Float[Tensor, " image"]:
        """The contribution of a bias, which is added to every pooled token."""
        if vector is None:
            return self.weights.new_zeros(len(self.weights))
        return ((self.direction @ vector.to(self.direction.dtype)) * self.weights).sum(dim=1)

    def split(
        self, mask: Bool[Tensor, "image query *unit"] | None, vectors: Float[Tensor, "image query width"] | None
    ) -> tuple[Functional, Float[Tensor, "image width"]]:
        """The same function of what is not replaced, and the contribution of each channel that is (0 if not given)."""
        rest = self.direction if mask is None else _without(mask, self.direction.expand(-1, mask.shape[1], -1))
        if mask is None or vectors is None:
            return Functional(rest, self.weights), rest.new_zeros(rest.shape[0], rest.shape[2])
        channels = (self.direction - rest) * vectors.to(rest.dtype) * self.weights[..., None]
        return Functional(rest, self.weights), channels.sum(dim=1)

    def through(
        self,
        output: Output,
        raw: Float[Tensor, "image query width"] | None,
        joined: Float[Tensor, "image query unit"] | None = None,
        *,
        replaced: Replaced | None = None,
        added: Float[Tensor, "image query width"] | None = None,
        coefficients: Float[Tensor, "image query unit"] | None = None,
        bias_only: bool = False,
    ) -> Share:
        """The same function of the input of a sublayer's last projection, and what does not come from there.

        Contributions of what edits ``replaced`` need the output that is ``added``, or ``coefficients``. With
        ``bias_only`` the bias of the result alone has a meaning, and the projection is left out where it can be.
        """
        replaced = replaced or _NOTHING
        function, edit = self.split(replaced.out, added)
        bias = self.weights.new_zeros(len(self.weights))
        if output.norm is not None:
            if raw is None:
                raise TypeError("a post-norm block needs the raw sublayer output")
            bias = bias + function.of_constant(output.norm.bias)
            scale = output.norm.inverse_scale(raw.to(bias.dtype))[..., 0]
            function = Functional(output.norm.pull(function.direction), function.weights * scale)
        elif output.scale is not None:
            function = Functional(function.direction * output.scale.to(bias.dtype), function.weights)
        function, edit_before_norm = function.split(replaced.raw, raw)
        bias = bias + function.of_constant(output.bias)
        if bias_only and output.inner is None:
            return Share(function, bias, bias, function.direction[:, 0])
        function = Functional(function.direction @ output.weight.to(bias.dtype), function.weights)
        function, units = function.split(replaced.coefficients, coefficients)
        if output.inner is not None:
            if joined is None:
                raise TypeError("a block with an inner norm needs the joined heads before it")
            bias = bias + function.of_constant(output.inner.bias)
            scale = output.inner.inverse_scale(joined.to(bias.dtype))[..., 0]
            function = Functional(output.inner.pull(function.direction), function.weights * scale)
            function, units_before_norm = function.split(replaced.joined, joined)
            units = units + units_before_norm
        return Share(function, bias, edit.sum(dim=1) + edit_before_norm.sum(dim=1), units)


class Share(NamedTuple):
    """A logit's linear function of a sublayer's output, split by what the output consists of."""

    function: Functional
    """The function of the joined heads or hidden units, without replaced ones."""
    bias: Float[Tensor, " image"]
    """Contribution of biases."""
    edit: Float[Tensor, " image"]
    """Contribution of outputs that an edit put in the place of the sublayer's."""
    units: Float[Tensor, "image unit"]
    """Contribution of each channel or hidden unit whose value an edit put in."""


def head_contributions(
    functional: Functional,
    *,
    attention: Float[Tensor, "image head query token"],
    values: Float[Tensor, "image head token channel"],
) -> Float[Tensor, "image head token"]:
    """Contribution of each token through each head: ``Σ_q weights[q] · A[h, q, j] · (v[h, j] · W_O[h]ᵀ u[q])``.

    ``functional`` is already pulled back through the output projection (``Functional.through``): its direction is
    ``W_O[h]ᵀ u`` for all heads, concatenated.
    """
    dtype = functional.direction.dtype
    heads = functional.direction.unflatten(-1, (values.shape[1], -1))
    if heads.shape[1] == 1:
        contributions = torch.einsum("ihc,ihtc->iht", heads[:, 0], values.to(dtype))
        return contributions * torch.einsum("iq,ihqt->iht", functional.weights, attention.to(dtype))
    contributions = torch.einsum("iqhc,ihtc->ihqt", heads, values.to(dtype))
    return torch.einsum("iq,ihqt->iht", functional.weights, contributions * attention.to(dtype))
