"""Steps between a token and the class embedding, each with its exact and its frozen transposed Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from classlens.core.arguments import NonNegative, checked
from classlens.errors import ClasslensError


def logits_at_once(device: torch.device) -> int:
    """Number of class logits that are held while they are reduced.

    4 MiB in float32 fit into the cache of a CPU. An accelerator starts each operation anew, so it takes 256 MiB.
    """
    return 2**20 if device.type == "cpu" else 2**26


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for all lower precisions, in which class logits would tie."""
    return torch.promote_types(dtype, torch.float32)


def detached(parameter: Tensor | None) -> Tensor | None:
    """A parameter without its graph, or None."""
    return None if parameter is None else parameter.detach()


@runtime_checkable
class Step(Protocol):
    """One step from a token to the class embedding: ``y = L(x) · scale(x) + bias`` with a linear ``L``."""

    @property
    def bias(self) -> Tensor | None: ...

    def __call__(self, x: Tensor) -> Tensor: ...

    def inverse_scale(self, x: Tensor) -> Tensor:
        """The factor ``scale(x)``, ``[..., 1]``, which attribution freezes."""
        ...

    def pull(self, gradient: Tensor) -> Tensor:
        """The transposed Jacobian with a frozen scale, without that scale: ``Lᵀ``."""
        ...

    def vjp(self, x: Tensor, gradient: Tensor) -> Tensor:
        """The exact transposed Jacobian at ``x``."""
        ...


def _default_eps(dtype: torch.dtype) -> float:
    """Default ``eps`` of ``F.rms_norm``: for half precision, versions of torch differ."""
    x = torch.full((1,), 2.0**-8, dtype=dtype)
    epsilons = [torch.finfo(each).eps for each in (dtype, torch.float32)]
    return next(eps for eps in epsilons if torch.equal(F.rms_norm(x, (1,), eps=eps), F.rms_norm(x, (1,))))


@checked
@dataclass(frozen=True, eq=False)
class Norm:
    """A LayerNorm or RMSNorm over the last axis.

    ``y = weight ⊙ x̂ + bias`` with ``x̂ = (x - μ) / σ`` (``"layer"``) or ``x̂ = x / rms(x)`` (``"rms"``).

    Args:
        kind: ``"layer"`` or ``"rms"``.
        weight: ``[width]``; None for 1.
        bias: ``[width]``; None for 0.
        eps: added to the variance (or mean square) before its square root.

    Examples:
        >>> norm = Norm("rms", weight=torch.tensor([1.0, 2.0]), bias=None, eps=0.0)
        >>> norm(torch.tensor([[1.0, -1.0]]))
        tensor([[ 1., -2.]])
    """

    kind: Literal["layer", "rms"]
    weight: Float[Tensor, " width"] | None
    bias: Float[Tensor, " width"] | None
    eps: NonNegative

    def _axis_sizes(self) -> dict[str, int]:
        return {} if self.weight is None else {"width": len(self.weight)}

    @classmethod
    def of(cls, layer: nn.LayerNorm | nn.RMSNorm) -> Norm:
        """The norm of one of torch's layers.

        Args:
            layer: a LayerNorm or RMSNorm over the last axis; its parameters are detached, not copied.

        Returns:
            A ``Norm``, as in ``Norm.of(model.norm)``.
        """
        weight, bias = detached(layer.weight), detached(getattr(layer, "bias", None))
        if isinstance(layer, nn.LayerNorm):
            return cls("layer", weight, bias, layer.eps)
        dtype = torch.get_default_dtype() if weight is None else weight.dtype
        return cls("rms", weight, bias, _default_eps(dtype) if layer.eps is None else layer.eps)

    def __call__(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        """The norm of each row, computed by torch's own function."""
        width = x.shape[-1:]
        weight, bias = (None if p is None else p.to(x.dtype) for p in (self.weight, self.bias))
        if self.kind == "layer":
            return F.layer_norm(x, width, weight, bias, self.eps)
        y = F.rms_norm(x, width, weight, self.eps)
        return y if bias is None else y + bias

    def inverse_scale(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows 1"]:
        """``1 / σ`` (or ``1 / rms``) of each row, the scale that attribution freezes."""
        # Two vectorized passes are faster than torch.var on a CPU.
        centered = x - x.mean(dim=-1, keepdim=True) if self.kind == "layer" else x
        return (centered.square().mean(dim=-1, keepdim=True) + self.eps).rsqrt()

    def pull(self, gradient: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        """The transposed Jacobian with a frozen scale, without that scale: ``weight ⊙ g``, centered for a LayerNorm.

        ``pull(g) · x / σ = g · (norm(x) - bias)`` for every ``x``, so that contributions sum to the logit.
        """
        u = gradient if self.weight is None else gradient * self.weight.to(gradient.dtype)
        return u - u.mean(dim=-1, keepdim=True) if self.kind == "layer" else u

    def vjp(
        self, x: Float[Tensor, "*rows width"], gradient: Float[Tensor, "*rows width"]
    ) -> Float[Tensor, "*rows width"]:
        """The transposed Jacobian at ``x``: ``(u - mean(u) - x̂ · mean(u ⊙ x̂)) / σ`` with ``u = weight ⊙ g``."""
        scale = self.inverse_scale(x)
        centered = x - x.mean(dim=-1, keepdim=True) if self.kind == "layer" else x
        unit = centered * scale
        u = self.pull(gradient)
        return (u - unit * (u * unit).mean(dim=-1, keepdim=True)) * scale


@dataclass(frozen=True, eq=False)
class Projection:
    """A linear layer before the class embedding, such as CLIP's projection."""

    weight: Float[Tensor, "outer width"]
    bias: Float[Tensor, " outer"] | None = None

    def __call__(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows outer"]:
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))

    def inverse_scale(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows 1"]:
        return torch.ones_like(x[..., :1])

    def pull(self, gradient: Float[Tensor, "*rows outer"]) -> Float[Tensor, "*rows width"]:
        return gradient @ self.weight.to(gradient.dtype)

    def vjp(
        self, x: Float[Tensor, "*rows width"], gradient: Float[Tensor, "*rows outer"]
    ) -> Float[Tensor, "*rows width"]:
        return self.pull(gradient)


@dataclass(frozen=True, eq=False)
class UnitLength:
    """Division by the Euclidean length, as before CLIP's comparison with text embeddings."""

    eps: float = 1e-12
    bias: None = None

    def __call__(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        return F.normalize(x, dim=-1, eps=self.eps)

    def inverse_scale(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows 1"]:
        length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return length.clamp_min(self.eps).reciprocal()

    def pull(self, gradient: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        return gradient

    def vjp(
        self, x: Float[Tensor, "*rows width"], gradient: Float[Tensor, "*rows width"]
    ) -> Float[Tensor, "*rows width"]:
        scale = self.inverse_scale(x)
        unit = x * scale
        return (gradient - unit * (unit * gradient).sum(dim=-1, keepdim=True)) * scale


@dataclass(frozen=True, eq=False)
class Pool:
    """A pool other than the mean, such as attention pooling; a single token is pooled as a sequence of one.

    ``function`` maps ``[image, token, width]`` to ``[image, width]``. Attribution is not defined for it, as it is not
    linear; its vector-Jacobian product comes from autograd.
    """

    function: Callable[[Tensor], Tensor]
    bias: None = None

    def __call__(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        return self.function(x.reshape(-1, 1, x.shape[-1])).reshape(x.shape)

    def inverse_scale(self, x: Tensor) -> Tensor:
        raise ClasslensError(_NOT_LINEAR)

    def pull(self, gradient: Tensor) -> Tensor:
        raise ClasslensError(_NOT_LINEAR)

    def vjp(
        self, x: Float[Tensor, "*rows width"], gradient: Float[Tensor, "*rows width"]
    ) -> Float[Tensor, "*rows width"]:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (result,) = torch.autograd.grad(self(leaf), leaf, gradient)
        return result


_NOT_LINEAR = (
    "logit attribution is not defined for a head that pools by attention, as it is not linear in the tokens: use "
    "explain(), or a model with a [CLS] head or average pooling"
)
