"""Labels of results: dims, coordinates and attributes of every array that classlens returns."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from classlens.explain.method import MethodLike
from classlens.explain.registry import find_method, short_name
from classlens.models.classes import Classes
from classlens.models.label_groups import LabelGroups
from classlens.models.view import ModelView, Tokens

Coordinates = dict[Hashable, Any]


def array(
    values: Tensor | NDArray[Any],
    dims: Sequence[str],
    coords: Mapping[Hashable, Any],
    *,
    name: str,
    **attrs: str,
) -> xr.DataArray:
    """A labeled array over ``values`` without a copy; coordinates of other dims are left out."""
    data = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    fitting: Coordinates = {key: value for key, value in coords.items() if _dims_of(key, value) <= set(dims)}
    return xr.DataArray(data, dims=dims, coords=fitting, name=name, attrs=attrs)


def _dims_of(key: Hashable, value: Any) -> set[Hashable]:
    """Dims of a coordinate, given as an array of another result, as ``(dims, values)`` or by its own name."""
    if isinstance(value, xr.DataArray):
        return set(value.dims)
    return set(np.atleast_1d(value[0])) if isinstance(value, tuple) else {key}


def on_grid(importance: xr.DataArray, grid: tuple[int, int]) -> xr.DataArray:
    """Importance of image tokens, summed over blocks and heads, as ``image, row, column``."""
    coords: Coordinates = {str(key): coord for key, coord in importance.coords.items() if coord.dims == ("image",)}
    coords |= {"row": np.arange(grid[0]), "column": np.arange(grid[1])}
    summed = importance.sum([dim for dim in importance.dims if dim in ("block", "head")], skipna=False).values
    dims = ("image", "row", "column")
    return array(summed.reshape(-1, *grid), dims, coords, name="importance", **importance.attrs)


def image_names(names: Sequence[str]) -> NDArray[Any]:
    """Names of images as a coordinate; bytes of a file name that are not text become �, as arrays hold text only."""
    shown = [name.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for name in names]
    return np.array(shown, dtype=object)


def state_coords(
    view: ModelView, tokens: Tokens, names: Sequence[str], blocks: NDArray[Any], *, image_only: bool = False
) -> Coordinates:
    """Coordinates of images, blocks, heads and tokens."""
    return {
        "image": image_names(names),
        "block": blocks,
        "head": np.arange(view.blocks[0].heads),
        **token_coords(tokens, image_only=image_only),
    }


def token_coords(tokens: Tokens, *, image_only: bool = False) -> Coordinates:
    """Index, kind, grid row and column of each token; prefix tokens have row and column -1."""
    prefix = len(tokens.prefix)
    rows, columns = (np.repeat(-1, prefix) for _ in range(2))
    grid = np.indices(tokens.grid).reshape(2, -1)
    start = prefix if image_only else 0
    return {
        "token": np.arange(start, tokens.count),
        "token_kind": ("token", np.array(tokens.kinds)[start:]),
        "row": ("token", np.concatenate([rows, grid[0]])[start:]),
        "column": ("token", np.concatenate([columns, grid[1]])[start:]),
    }


def class_coords(classes: Classes, chosen: slice = slice(None)) -> Coordinates:
    """Index and name of each class, or of the chosen ones."""
    names = np.array(classes.names, dtype=object)[chosen]
    return {"category": np.arange(len(classes))[chosen], "class_name": ("category", names)}


def target_coords(classes: Classes | LabelGroups, target: NDArray[Any], name: str = "target") -> Coordinates:
    """Index and name of a class, or group, of each image: the one of interest, or that of ``name``; ``""`` for -1."""
    names = np.array([classes.names[index] if index >= 0 else "" for index in target], dtype=object)
    return {name: ("image", target), f"{name}_name": ("image", names)}


def method_attrs(method: MethodLike, options: Mapping[str, Any]) -> dict[str, str]:
    """A method and its options as attributes of a result."""
    resolved = find_method(method).resolve(options)
    return {"method": short_name(method), **{key: str(value) for key, value in resolved.items() if value is not None}}
