"""Passes of their own for methods that need attention weights: a few images at once, as weights are large."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from classlens.forward.recording import Recording

# Attention weights of all blocks held at once, twice where their gradients are: 256 MiB in float32.
_WEIGHTS = 2**26


def over_images(recording: Recording, found: Callable[[slice], Tensor]) -> Tensor:
    """What a method finds for some images, for all of them, on the CPU."""
    heads = sum(block.heads for block in recording.view.blocks)
    step = max(1, _WEIGHTS // (heads * recording.tokens.count**2))
    starts = range(0, len(recording), step)
    return torch.cat([found(slice(start, min(start + step, len(recording)))).detach().cpu() for start in starts])
