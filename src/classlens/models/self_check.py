"""The self-check: points, class space and projections of a view must reproduce the model (laws 1 to 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from classlens.core.steps import compute_dtype
from classlens.errors import ClasslensError
from classlens.models.layer_weights import merge_first
from classlens.models.view import ModelView, Tokens


@dataclass(frozen=True)
class Checks:
    """Errors of the laws on one input, with the errors that rounding alone may cause."""

    law1: float
    """Largest ``|resid_post - (resid_pre + attn_out + mlp_out)|`` relative to the largest ``|resid_post|``."""
    law2: float
    """Largest difference between the model's logits and the projection of the tokens that it pools."""
    law1_tolerance: float
    law2_tolerance: float
    largest_logit: float = 0.0
    failure: str | None = None
    """The first law that does not hold, in words."""
    law3: float = 0.0
    """Largest difference between a sublayer's output and what its heads or hidden units add, or between a logit and
    its linear form, relative to the largest of them."""
    gradient: float = 0.0
    """Largest difference between the class gradient of a block in closed form and by autograd, relative to the largest
    gradient."""
    law3_tolerance: float = 0.0
    """Tolerance of ``law3`` and ``gradient``."""


def measure_laws(
    view: ModelView,
    logits: Tensor,
    tokens: Tokens,
    *,
    resid_pre: Sequence[Tensor],
    attn_out: Sequence[Tensor],
    mlp_out: Sequence[Tensor],
    resid_post: Sequence[Tensor],
) -> Checks:
    """Laws 1 and 2 on one recorded forward pass; raises ClasslensError where weights are not finite."""
    _check_finite(view, logits)
    if not len(resid_pre) == len(attn_out) == len(mlp_out) == len(resid_post) == len(view.blocks):
        counts = f"{len(resid_pre)}, {len(attn_out)}, {len(mlp_out)} and {len(resid_post)} times"
        raise _failed(view, f"resid_pre, attn_out, mlp_out and resid_post passed {counts} in {len(view.blocks)} blocks")
    if resid_post[-1].ndim != 3 or resid_post[-1].shape[1] != tokens.count:
        prefix = " ".join(tokens.prefix) or "no prefix"
        rows, columns = tokens.grid
        shape = list(resid_post[-1].shape)
        raise _failed(view, f"hidden states of shape {shape} are not {prefix} and {rows}×{columns} image tokens")
    # A joint output projection is computed in two parts here, so its products are summed in another order.
    law1_tolerance = (4 if view.has_mid else 16) * torch.finfo(resid_post[-1].dtype).eps
    law1, failure = 0.0, None
    for block, (pre, attn, mlp, post) in enumerate(zip(resid_pre, attn_out, mlp_out, resid_post, strict=True)):
        law1 = max(law1, _largest(post - ((pre + attn) + mlp)) / max(_largest(post), 1e-30))
        jump = _largest(pre - resid_post[block - 1]) / max(_largest(pre), 1e-30) if block else 0.0
        law1 = max(law1, jump)
        if failure is None and not jump <= law1_tolerance:
            failure = f"the input of block {block} is not the output of block {block - 1}"
    projected = view.logits(resid_post[-1])
    law2 = _largest(projected - logits.to(projected.dtype))
    # float32 logits of order 10 agree to 1e-4; half precision is limited by the model's own last product.
    eps = torch.finfo(logits.dtype).eps
    size = max(_largest(logits), 1.0)
    half = logits.dtype != compute_dtype(logits.dtype)
    law2_tolerance = max(1e-5 * max(size, 10.0), 8 * eps * size if half else 0.0)
    if failure is None and not law1 <= law1_tolerance:
        failure = f"block outputs are not the sum of their parts (relative error {law1:.1e})"
    if failure is None and not law2 <= law2_tolerance:
        failure = f"projecting the last hidden states misses the model's logits by {law2:.1e}"
    return Checks(law1, law2, law1_tolerance, law2_tolerance, _largest(logits), failure)


def require_laws(view: ModelView, checks: Checks, *, changed: bool = False) -> Checks:
    """Return the checks; raises ClasslensError when one fails, for a model that has ``changed`` since it was loaded."""
    if checks.failure is not None:
        if changed and merge_first(view.module) is None:
            raise ClasslensError(
                f"model {view.name!r} was changed after it was loaded, so that {checks.failure}; load the model again"
            )
        raise _failed(view, checks.failure)
    return checks


def _check_finite(view: ModelView, logits: Tensor) -> None:
    if torch.isfinite(logits).all():
        return
    for name, tensor in chain(view.module.named_parameters(), view.module.named_buffers()):
        if not torch.isfinite(tensor).all():
            raise ClasslensError(
                f"model {view.name!r} has values that are not finite in {name!r}: expected finite weights; load "
                "another checkpoint"
            )
    raise ClasslensError(f"model {view.name!r} gives logits that are not finite; load it in float32")


def _largest(x: Tensor) -> float:
    return float(x.abs().max())


def _failed(view: ModelView, failure: str) -> ClasslensError:
    remedy = "remove hooks and subclasses that change a library's blocks, or correct the ModelView"
    return ClasslensError(
        f"the description of model {view.name!r} is wrong: {failure}; {merge_first(view.module) or remedy}"
    )
