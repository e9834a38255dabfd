"""Importance maps at the resolution of the pixels."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

# Bits kept when a map is rounded.
_BITS = 20


def upsample(
    importance: Float[Tensor, "image token"], grid: tuple[int, int], size: tuple[int, int]
) -> Float[Tensor, "image height width"]:
    """Maps at the resolution of the pixels, bilinear between the centers of tokens, in float64.

    Values are rounded to about six digits of the largest value of their map. Pixels beyond the outermost centers, for
    example, have equal values but for rounding, which differs between machines and would decide their order.
    """
    maps = importance.double().view(len(importance), 1, *grid)
    upsampled = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)[:, 0]
    # A power of two, so that sums of rounded values are exact.
    unit = torch.exp2(torch.frexp(maps.abs().amax(dim=(1, 2, 3))).exponent.double() - _BITS)[:, None, None]
    return (upsampled / unit).round() * unit
