"""Names for the axes of results: every array that classlens returns is labeled here."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from classlens.models.classes import Classes
from classlens.models.view import Tokens

Coordinates = dict[Hashable, Any]


def array(
    values: Tensor | np.ndarray[Any, Any],
    dims: Sequence[str],
    coords: Mapping[Hashable, Any],
    *,
    name: str,
    **attrs: str,
) -> xr.DataArray:
    """A labeled array over ``values`` without a copy; coordinates of other dims are left out."""
    data = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    fitting: Coordinates = {key: value for key, value in coords.items() if _along(key, value) <= set(dims)}
    return xr.DataArray(data, dims=dims, coords=fitting, name=name, attrs=attrs)


def _along(key: Hashable, value: Any) -> set[Hashable]:
    """The dims of a coordinate, given as an array of another result, as ``(dims, values)`` or by its own name."""
    if isinstance(value, xr.DataArray):
        return set(value.dims)
    return set(np.atleast_1d(value[0])) if isinstance(value, tuple) else {key}


def image_names(names: Sequence[str]) -> np.ndarray[Any, Any]:
    """Names as a coordinate. Bytes of a file name that are no text, which arrays of text do not hold, become �."""
    shown = [name.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for name in names]
    return np.array(shown, dtype=object)


def token_coords(tokens: Tokens, *, image_only: bool = False) -> Coordinates:
    """Index, kind, grid row and column of each token; prefix tokens stand at row and column -1."""
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


def class_coords(classes: Classes, some: slice = slice(None)) -> Coordinates:
    """Index and name of each class, or of some of them."""
    names = np.array(classes.names, dtype=object)[some]
    return {"category": np.arange(len(classes))[some], "class_name": ("category", names)}


def target_coords(classes: Classes, target: np.ndarray[Any, Any]) -> Coordinates:
    """The class of interest of each image."""
    names = np.array([classes.names[index] for index in target], dtype=object)
    return {"target": ("image", target), "target_name": ("image", names)}


def method_attrs(method: str, options: dict[str, Any]) -> dict[str, str]:
    """The method and its options, as attributes of a result; the loss of a class gradient also where it was left
    out."""
    if method == "class_gradient":
        options.setdefault("loss", "cross_entropy" if options.get("against") is None else "logit")
    return {"method": method, **{key: str(value) for key, value in options.items() if value is not None}}
