"""The place of a store: a local path or a URL of fsspec, opened as a Zarr group."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import zarr
from zarr.abc.store import Store as Backend
from zarr.storage import FsspecStore, LocalStore

from classlens.errors import ClasslensError, cause
from classlens.store.guard import ATTRIBUTE, GuardedStore

FORMAT = 2
"""Version of the format of stores; other versions are refused."""


def as_url(store: str | os.PathLike[str]) -> str:
    """A local path, or a URL of fsspec; ``file://`` becomes a path."""
    text = os.fspath(store)
    return text.removeprefix("file://") if text.startswith("file://") else text


def is_local(url: str) -> bool:
    """Whether the store lies on a local disk."""
    return "://" not in url


def open_backend(url: str) -> Backend:
    """The Zarr store behind a URL; raises ClasslensError where fsspec cannot open it."""
    if is_local(url):
        return LocalStore(url)
    try:
        return FsspecStore.from_url(url)
    except Exception as error:  # an unknown protocol, a missing library, no access: not bounded
        raise ClasslensError(
            f"store {url!r} cannot be reached ({cause(error)}): give a local path, or a URL that fsspec opens, "
            "with the library that its protocol needs"
        ) from None


def find_root(url: str, *, writing: bool = False) -> zarr.Group | None:
    """The root of a store of classlens; None where nothing lies. Raises ClasslensError for anything else."""
    if is_local(url) and not os.path.lexists(url):
        return None
    backend = GuardedStore(open_backend(url), url, writing=writing)
    try:
        root = zarr.open_group(backend, mode="r+", zarr_format=3)
    except ClasslensError:
        raise
    except FileNotFoundError:
        if is_local(url) and (not os.path.isdir(url) or os.listdir(url)):
            raise _foreign(url) from None
        return None
    except (ValueError, KeyError, OSError):
        raise _foreign(url) from None
    attributes = root.attrs.get(ATTRIBUTE)
    if not isinstance(attributes, Mapping) or "format" not in attributes:
        raise _foreign(url)
    if attributes["format"] != FORMAT:
        raise ClasslensError(
            f"store {url!r} has format {attributes['format']}, but this version of classlens reads and writes format "
            f"{FORMAT}: measure into another --out"
        )
    return root


def open_root(url: str) -> zarr.Group:
    """The root of a store; raises ClasslensError where there is none."""
    root = find_root(url)
    if root is None:
        raise ClasslensError(f"store {url!r} does not exist: give what `classlens measure --out` wrote")
    return root


def is_complete(group: zarr.Group) -> bool:
    """Whether a group was made completely: the attribute ``coordinates`` is written last."""
    return "coordinates" in group.attrs


def root_attributes(root: zarr.Group) -> dict[str, Any]:
    """Attributes of a store: model, data, settings and versions."""
    attributes: Any = root.attrs[ATTRIBUTE]
    return dict(attributes)


def _foreign(url: str) -> ClasslensError:
    return ClasslensError(f"store {url!r} is no store of classlens: give the path of a store, or a new path")
