"""Opening a store for analysis."""

from __future__ import annotations

import os

import xarray as xr
import zarr

from classlens.core.arguments import AnyPath, checked
from classlens.core.home import with_home
from classlens.errors import ClasslensError
from classlens.store.backend import as_url, is_complete, open_root, root_attributes


@with_home
@checked
def open_store(store: AnyPath) -> xr.DataTree:
    """Open a store as a tree of labeled arrays, one node per condition (or metric and method), read lazily.

    Args:
        store: path or URL of a store that ``classlens.measure``, ``evaluate`` or ``probe`` wrote.

    Returns:
        An ``xarray.DataTree``. Values are read on access, one site and block at little cost. Pending and skipped images
        hold fill values (-1, NaN); the variable ``measured`` is 0 for pending images, 1 for measured and 2 for skipped
        ones. Attributes of the root name the model, its weights, the data, the transform and the versions.

    Raises:
        ClasslensError: the path holds no store of classlens.

    Examples:
        >>> import classlens
        >>> clean = classlens.open_store("imagenet.zarr")["clean"]  # doctest: +SKIP
        >>> clean["rank"].sel(site="resid_post", block=11).isel(image=slice(100))  # doctest: +SKIP
    """
    url = as_url(store)
    root = open_root(url)
    groups = {f"/{name}": _dataset(root, name) for name in _names(root)}
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=root_attributes(root)), **groups})


def open_group(store: str | os.PathLike[str], group: str) -> xr.Dataset:
    """One group of a store, with the attributes of the store; raises ClasslensError where it is missing."""
    url = as_url(store)
    root = open_root(url)
    if group not in _names(root):
        raise ClasslensError(f"store {url!r} has no group {group!r}: it holds {', '.join(_names(root)) or 'none yet'}")
    return _dataset(root, group).assign_attrs(root_attributes(root))


def group_names(store: str | os.PathLike[str]) -> frozenset[str]:
    """Names of the groups of a store; raises ClasslensError for anything but a store."""
    return frozenset(_names(open_root(as_url(store))))


def _names(root: zarr.Group) -> list[str]:
    """Sorted names of the groups, without those that a stopped run left half made."""
    return sorted(name for name, group in root.groups() if is_complete(group))


def _dataset(root: zarr.Group, group: str) -> xr.Dataset:
    dataset: xr.Dataset = xr.open_zarr(root.store, group=group, consolidated=False, chunks=None)
    return dataset
