"""The self-check: do the hooks and the class space of a view explain the model's own output?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from classlens.core.maps import compute_dtype
from classlens.errors import ClasslensError
from classlens.models.view import ModelView


@dataclass(frozen=True)
class Checks:
    """Measured errors of the laws on one input, with what would still be rounding."""

    law1: float
    """Largest ``|resid_post - (resid_pre + attn_out + mlp_out)|`` as a share of the largest ``|resid_post|``."""
    law2: float
    """Largest difference between the model's logits and the projection of what it pools."""
    law1_tolerance: float
    law2_tolerance: float


def measure_laws(
    view: ModelView,
    logits: Tensor,
    *,
    resid_pre: Sequence[Tensor],
    attn_out: Sequence[Tensor],
    mlp_out: Sequence[Tensor],
    resid_post: Sequence[Tensor],
) -> Checks:
    """Laws 1 and 2 on one captured forward pass; raises ClasslensError when one fails or weights are not finite."""
    _finite(view, logits)
    law1 = 0.0
    for block, (pre, attn, mlp, post) in enumerate(zip(resid_pre, attn_out, mlp_out, resid_post, strict=True)):
        law1 = max(law1, _largest(post - ((pre + attn) + mlp)) / max(_largest(post), 1e-30))
        if block and _largest(pre - resid_post[block - 1]) > 0:
            raise _failed(view, f"the input of block {block} is not the output of block {block - 1}")
    projected = view.logits(resid_post[-1])
    law2 = _largest(projected - logits.to(projected.dtype))
    # float32 logits of order 10 agree to 1e-4; in half precision the model's own last product is what limits.
    eps = torch.finfo(logits.dtype).eps
    size = max(_largest(logits), 1.0)
    law2_tolerance = max(
        1e-5 * max(size, 10.0), 50 * eps * size if logits.dtype != compute_dtype(logits.dtype) else 0.0
    )
    checks = Checks(law1, law2, 4 * torch.finfo(resid_post[-1].dtype).eps, law2_tolerance)
    if not checks.law1 <= checks.law1_tolerance:
        raise _failed(view, f"block outputs are not the sum of their parts (relative error {law1:.1e})")
    if not checks.law2 <= checks.law2_tolerance:
        raise _failed(view, f"projecting the last hidden states misses the model's logits by {law2:.1e}")
    return checks


def _finite(view: ModelView, logits: Tensor) -> None:
    if torch.isfinite(logits).all():
        return
    for name, parameter in view.module.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ClasslensError(
                f"model {view.name!r} has values that are not finite in {name!r}: expected finite weights; load "
                "another checkpoint"
            )
    raise ClasslensError(f"model {view.name!r} gives logits that are not finite; load it in float32")


def _largest(x: Tensor) -> float:
    return float(x.abs().max())


def _failed(view: ModelView, what: str) -> ClasslensError:
    return ClasslensError(
        f"model {view.name!r} is not read correctly: {what}; it changes what its library's blocks compute, which "
        "classlens does not support"
    )
