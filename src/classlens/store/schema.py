"""Schema of a group of a store: names, dims, types and fill values of its arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from classlens.core.arrays import Array

MEASURED, SKIPPED = 1, 2
"""Values of the variable ``measured``; 0 is a pending image."""

Coords = Mapping[str, tuple[str, Array]]
"""Coordinates: dim and values by name."""


@dataclass(frozen=True)
class Variable:
    """One array of a group.

    Args:
        dims: its dims; ``image`` comes first.
        dtype: its NumPy dtype.
        fill: value of entries without a measurement: removed tokens, no mask, no label.
        note: one line for readers of the store.
    """

    dims: tuple[str, ...]
    dtype: np.dtype[Any]
    fill: float
    note: str


@dataclass(frozen=True, eq=False)
class Schema:
    """Arrays of a group and what labels them.

    Args:
        sizes: size of each dim.
        variables: the arrays by name.
        chunked: dims that one chunk holds completely; a chunk holds one index of every other dim but ``image``.
        coords: coordinates; every dim has one of its name.
        attrs: attributes of the group.
    """

    sizes: Mapping[str, int]
    variables: Mapping[str, Variable]
    chunked: frozenset[str]
    coords: Coords = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def shape(self, dims: tuple[str, ...]) -> tuple[int, ...]:
        """Sizes of these dims."""
        return tuple(self.sizes[dim] for dim in dims)

    def chunk(self, dims: tuple[str, ...], images: int) -> tuple[int, ...]:
        """Shape of a chunk of so many images: one site and block is cheap to read."""
        return tuple(images if dim == "image" else self.sizes[dim] if dim in self.chunked else 1 for dim in dims)

    def blank(self, images: int) -> dict[str, Array]:
        """Arrays of so many images, filled with fill values."""
        return {
            name: np.full((images, *self.shape(variable.dims[1:])), variable.fill, dtype=variable.dtype)
            for name, variable in self.variables.items()
        }
