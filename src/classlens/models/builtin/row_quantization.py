"""Weights in 8 bits: every row of a matrix in steps of its own, everything else in half precision."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_STEP = ":step"
"""Suffix of the tensor that holds the step of every row of a matrix."""


def quantize(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with every weight of two or more dims as int8 and a float32 step a row, the rest in half precision.

    A row is all that one output reads. Its step is a 127th of its largest size.
    """
    stored: dict[str, Tensor] = {}
    for name, value in state.items():
        if not _is_matrix(name, value):
            stored[name] = value.half().contiguous()
            continue
        rows = value.float().flatten(1)
        step = (rows.abs().amax(1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
        stored[name] = (rows / step[:, None]).round().to(torch.int8).view_as(value).contiguous()
        stored[name + _STEP] = step
    return stored


def restore(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict in float32 of what ``quantize`` returned; tensors without a step are only cast."""
    state = {}
    for name, value in stored.items():
        if name.endswith(_STEP):
            continue
        step = stored.get(name + _STEP)
        state[name] = value.float() if step is None else value.float() * step.view(-1, *[1] * (value.ndim - 1))
    return state


def _is_matrix(name: str, value: Tensor) -> bool:
    return name.endswith("weight") and value.ndim >= 2
