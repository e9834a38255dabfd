"""Opening a store for analysis."""

from __future__ import annotations

import json
import os
from typing import Any

import xarray as xr
import zarr

from classlens.core.arguments import AnyPath
from classlens.core.path_arguments import checked_with_home
from classlens.errors import ClasslensError, cause
from classlens.store.backend import as_url, open_root, root_attributes
from classlens.store.files import StoreFiles


@checked_with_home
def open_store(store: AnyPath) -> xr.DataTree:
    """Open a store as a tree of labeled arrays, one node per condition (or metric and method), read lazily.

    Args:
        store: path or URL of a store that ``classlens.measure``, ``evaluate`` or ``probe`` wrote.

    Returns:
        An ``xarray.DataTree``. Values are read on access, one site and block at little cost. Pending and skipped images
        hold fill values (-1, NaN); the variable ``measured`` is 0 for pending images, 1 for measured and 2 for skipped
        ones. Attributes of the root name the model, its weights, the data, the transform and the versions (as JSON), in
        types that ``to_netcdf`` takes (with h5netcdf or netCDF4; SciPy writes one node without ``content``).

    Raises:
        ClasslensError: the path holds no store of classlens, or one that is not as classlens writes it. Values that are
            missing or damaged raise it when they are read.

    Examples:
        >>> import classlens
        >>> clean = classlens.open_store("imagenet.zarr")["clean"]  # doctest: +SKIP
        >>> clean["rank"].sel(site="resid_post", block=11).isel(image=slice(100))  # doctest: +SKIP
    """
    url = as_url(store)
    root = open_root(url)
    groups = {f"/{name}": _dataset(root, url, name) for name in StoreFiles(url).complete_groups()}
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=_netcdf_attributes(root_attributes(root))), **groups})


def open_group(store: str | os.PathLike[str], group: str) -> xr.Dataset:
    """One group of a store, with the attributes of the store; raises ClasslensError where it is missing."""
    url = as_url(store)
    root = open_root(url)
    names = StoreFiles(url).complete_groups()
    if group not in names:
        raise ClasslensError(f"store {url!r} has no group {group!r}: it holds {', '.join(names) or 'none yet'}")
    return _dataset(root, url, group).assign_attrs(root_attributes(root))


def group_names(store: str | os.PathLike[str]) -> frozenset[str]:
    """Names of the groups of a store; raises ClasslensError for anything but a store."""
    url = as_url(store)
    open_root(url)
    return frozenset(StoreFiles(url).complete_groups())


def _dataset(root: zarr.Group, url: str, group: str) -> xr.Dataset:
    StoreFiles(url).check_group(group)
    try:
        dataset: xr.Dataset = xr.open_zarr(root.store, group=group, consolidated=False, chunks=None, zarr_format=3)
    except ClasslensError:
        raise
    except Exception as error:  # what zarr and xarray raise over arrays that do not fit together is not bounded
        raise ClasslensError(
            f"group {group!r} of store {url!r} cannot be opened ({cause(error)}): restore its files, or measure "
            "into another store"
        ) from None
    return dataset.assign_attrs(_netcdf_attributes(dataset.attrs))


def _netcdf_attributes(attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes without those that are None, in types of netCDF: truth as 0 or 1, and tables as JSON."""
    return {
        key: json.dumps(value) if isinstance(value, dict) else int(value) if isinstance(value, bool) else value
        for key, value in attributes.items()
        if value is not None
    }
