"""The value projection of each head as a matrix, read off the modules that compute the values."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from classlens.core.steps import compute_dtype
from classlens.errors import ClasslensError
from classlens.forward.run import evaluating
from classlens.models.view import ModelView, Point

# Largest difference of a linear map, of what its terms add up to: rounding of long sums, and of half precision.
_TOLERANCE = 1e-3


def value_weights(view: ModelView, block: int) -> Float[Tensor, "head channel width"]:
    """``W_V`` of every head, so that values are ``W_V x`` and a bias; those of a group of heads are repeated.

    The modules at the point ``values`` are evaluated on the identity. Raises ClasslensError where they are no linear
    map of the residual stream's width.
    """
    described = view.blocks[block]
    point, (width, units) = described.points["values"], described.attn.weight.shape
    shape = (width, described.heads, units // described.heads)
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(1, width, generator=generator)
    zero = torch.zeros(1, width)
    inputs = torch.cat([torch.eye(width), zero, probe]).to(view.device, view.dtype)
    values = _evaluated(view, point, inputs, block)
    if values.shape[1:] != shape[1:]:
        raise _not_linear(view, block)
    values = values.to(compute_dtype(view.dtype))
    constant, product = values[width], values[width + 1] - values[width]
    weights = values[:width] - constant
    probe = inputs[width + 1].to(weights.dtype)
    size = torch.einsum("w,whc->hc", probe.abs(), weights.abs()) + constant.abs()
    error = (product - torch.einsum("w,whc->hc", probe, weights)).abs()
    tolerance = max(_TOLERANCE, 16 * torch.finfo(view.dtype).eps)
    if not bool((error <= tolerance * size + torch.finfo(weights.dtype).tiny).all()):
        raise _not_linear(view, block)
    return weights.permute(1, 2, 0)


def _evaluated(
    view: ModelView, point: Point, inputs: Float[Tensor, "row width"], block: int
) -> Float[Tensor, "row head channel"]:
    """The values of each row, which passes as a token of one image."""
    modules = (point.module, *point.more)
    try:
        with evaluating(view.module):
            passing = [inputs[None] if point.end == "input" else module(inputs[None]) for module in modules]
            parts = [point.read(each) for each in passing]
            values = parts[0] if len(parts) == 1 else point.join([part for part in parts if part is not None])
            assert values is not None
            # Modules that take tokens before images give one token of many images.
            return values.detach().transpose(1, 2).reshape(len(inputs), *values.shape[1::2])
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError):
        raise _not_linear(view, block) from None


def _not_linear(view: ModelView, block: int) -> ClasslensError:
    return ClasslensError(
        f"the values of block {block} of model {view.name!r} are no linear map of its tokens, so that its heads "
        "have no map between classes: take a block whose values come from linear layers"
    )
