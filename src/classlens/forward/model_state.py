"""The state of a model when it ran, so that results are not put together from two states of its weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class ModelState:
    """Address, dtype and version of every parameter and buffer, the first value of every matrix, and all hooks.

    Reading it takes about a millisecond. Writing in place raises a tensor's version, except through ``.data``, where
    the first value tells.
    """

    tensors: tuple[tuple[int, torch.dtype, int], ...]
    values: tuple[Tensor, ...]
    """First values, in one tensor for each dtype and device."""
    hooks: tuple[int, ...]

    @classmethod
    def of(cls, module: nn.Module) -> ModelState:
        """The state of a module and all its parts."""
        tensors: list[tuple[int, torch.dtype, int]] = []
        values: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        hooks: list[int] = []
        with torch.no_grad():
            for part in module.modules():
                hooks += [*part._forward_pre_hooks, *part._forward_hooks]
                for tensor in (*part._parameters.values(), *part._buffers.values()):
                    if tensor is None:
                        continue
                    version = -1 if tensor.is_inference() else tensor._version
                    tensors.append((tensor.data_ptr(), tensor.dtype, version))
                    if tensor.ndim > 1 and tensor.numel():
                        values.setdefault((tensor.dtype, tensor.device), []).append(tensor.as_strided((), ()))
            stacked = tuple(torch.stack(scalars) for scalars in values.values())
        return cls(tuple(tensors), stacked, tuple(hooks))

    def same_weights(self, other: ModelState) -> bool:
        """Whether every parameter and buffer is the same, with the same values."""
        return (
            self.tensors == other.tensors
            and len(self.values) == len(other.values)
            and all(map(_equal, self.values, other.values))
        )

    def same(self, other: ModelState) -> bool:
        """Whether weights and hooks are the same."""
        return self.hooks == other.hooks and self.same_weights(other)


def _equal(values: Tensor, others: Tensor) -> bool:
    """Whether all values are equal; a NaN is equal to itself."""
    return values.device == others.device and torch.equal(values.nan_to_num(), others.nan_to_num())
