"""A store of measurements: labeled arrays in Zarr v3, written a shard at a time, each followed by its marker."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.abc.store import Store as Backend
from zarr.storage import FsspecStore, LocalStore

from classlens.errors import ClasslensError, cause
from classlens.store.schema import MEASURED, SKIPPED, Array, Layout

SHARD = 64
"""Images in a shard."""
FORMAT = 1
"""Of the store; one of another format is refused."""

_KEY = "classlens"
Coords = Mapping[str, tuple[str, Array]]
"""Coordinates: the dim and the values of each."""


def open_store(store: str | os.PathLike[str], group: str = "clean") -> xr.Dataset:
    """Read a condition (or ``parameters``) of a store, lazily.

        clean = classlens.open_store("imagenet.zarr")
        clean["rank"].sel(site="resid_post", block=11).isel(image=slice(100))

    Arrays are read when their values are asked for, a site and a block at little cost. Images that are not measured
    yet, or were skipped, hold the fill values (-1, NaN); ``measured`` tells them (1 measured, 2 skipped). Attributes of
    the store are those of the dataset. Raises ClasslensError for what is no store of classlens or has no such group.
    """
    url = as_url(store)
    found = _existing_root(url)
    if group not in found.group_keys():
        names = ", ".join(sorted(found.group_keys()))
        raise ClasslensError(f"store {url!r} has no group {group!r}: it holds {names}")
    data: xr.Dataset = xr.open_zarr(found.store, group=group, consolidated=False, chunks=None)
    return data.assign_attrs(_identity(found))


def groups_of(store: str | os.PathLike[str]) -> frozenset[str]:
    """The conditions of a store, and ``parameters`` where it has them; raises ClasslensError for what is no store."""
    return frozenset(_existing_root(as_url(store)).group_keys())


def _existing_root(url: str) -> zarr.Group:
    found = _root(url)
    if found is None:
        raise ClasslensError(f"store {url!r} does not exist: give what `classlens measure --out` wrote")
    return found


def as_url(store: str | os.PathLike[str]) -> str:
    """A local path, or a URL of fsspec; ``file://`` is a path."""
    text = os.fspath(store)
    return text.removeprefix("file://") if text.startswith("file://") else text


def is_local(url: str) -> bool:
    return "://" not in url


def _backend(url: str) -> Backend:
    if is_local(url):
        return LocalStore(url)
    try:
        return FsspecStore.from_url(url)
    except Exception as error:  # an unknown protocol, a missing library, no access: not bounded
        raise ClasslensError(
            f"store {url!r} cannot be reached ({cause(error)}): give a local path, or a URL that fsspec opens, "
            "with the library that its protocol needs"
        ) from None


def _root(url: str) -> zarr.Group | None:
    """The root of a store of classlens, None where there is nothing; raises ClasslensError for anything else."""
    if is_local(url) and not os.path.lexists(url):
        return None
    backend = _backend(url)
    try:
        root = zarr.open_group(backend, mode="r+", zarr_format=3)
    except FileNotFoundError:
        if is_local(url) and (not os.path.isdir(url) or os.listdir(url)):
            raise _foreign(url) from None
        return None
    except (ValueError, KeyError, OSError):
        raise _foreign(url) from None
    found = root.attrs.get(_KEY)
    if not isinstance(found, Mapping) or "format" not in found:
        raise _foreign(url)
    if found["format"] != FORMAT:
        raise ClasslensError(
            f"store {url!r} has format {found['format']}, but this version of classlens writes format {FORMAT}: give "
            "another --out"
        )
    return root


def _identity(root: zarr.Group) -> dict[str, Any]:
    found: Any = root.attrs[_KEY]
    return dict(found)


def _foreign(url: str) -> ClasslensError:
    return ClasslensError(f"store {url!r} is no store of classlens: give a path where there is nothing yet")


class Store:
    """A store that is being written; see ``create``."""

    def __init__(self, url: str) -> None:
        root = _root(url)
        if root is None:
            raise ClasslensError(f"store {url!r} is gone: it was moved or deleted while it was being written")
        self.url = url
        self._root = root
        self.identity: dict[str, Any] = _identity(root)

    def done(self, condition: str) -> Array:
        """The variable ``measured`` of a condition: 0, ``MEASURED`` or ``SKIPPED`` for each image."""
        found: Array = np.asarray(self._array(condition, "measured")[:])
        return found

    def problems(self, condition: str) -> dict[int, str]:
        """Why images were skipped, by their index."""
        where = np.flatnonzero(self.done(condition) == SKIPPED)
        reasons = self._array(condition, "problem")
        return {int(index): str(np.asarray(reasons[index : index + 1])[0]) for index in where}

    def write(self, condition: str, start: int, values: Mapping[str, Array], problems: Mapping[int, str]) -> None:
        """Write whole shards from image ``start`` on, the marker last; ``problems`` by image of the data set.

        Where fewer images are given than belong to the last shard, the rest of it stays to be measured.
        """
        count = len(next(iter(values.values())))
        if start % SHARD:
            raise AssertionError(f"image {start} is not the first of a shard")
        part = slice(start, start + count)
        with self._saying():
            for name, value in values.items():
                self._array(condition, name)[part] = value
            state = np.full(count, MEASURED, dtype=np.uint8)
            if problems:
                reasons = np.array([problems.get(index, "") for index in range(start, start + count)], dtype=object)
                self._array(condition, "problem")[part] = reasons
                state[[index - start for index in problems]] = SKIPPED
            self._array(condition, "measured")[part] = state

    def add_group(self, name: str, layout: Layout, coords: Coords, attrs: Mapping[str, Any]) -> None:
        """Make a group (a condition), all of it to be measured; nothing is changed where it is there already."""
        group = self._root.get(name)
        if group is not None and "coordinates" in group.attrs:
            return
        with self._saying():
            _group(self._root, name, layout, coords, attrs)

    def replace_parameters(self, data: Mapping[str, tuple[tuple[str, ...], Array]], coords: Coords) -> None:
        """Write the group ``parameters``, whose arrays have no images."""
        with self._saying():
            _parameters(self._root, data, coords)

    def has_parameters(self) -> bool:
        group = self._root.get("parameters")
        return group is not None and "coordinates" in group.attrs

    def clear_leftovers(self) -> None:
        """Remove what a killed writer left half-written; only while the store is locked."""
        if is_local(self.url):
            for path in Path(self.url).rglob("*.partial"):
                path.unlink(missing_ok=True)

    def _array(self, condition: str, name: str) -> Any:
        return self._root[f"{condition}/{name}"]

    @contextmanager
    def _saying(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ClasslensError(
                f"store {self.url!r} cannot be written ({cause(error)}): make room or restore access, and run the "
                "same command again to go on where it stopped"
            ) from error


def create(url: str, identity: Mapping[str, Any]) -> Store:
    """Make an empty store; ``identity`` tells what it measures, for those who go on with it.

    On a local disk it is made under another name and renamed, so a store that exists has all of its attributes.
    """
    attributes = {_KEY: {"format": FORMAT, **identity}}
    try:
        if not is_local(url):
            zarr.create_group(_backend(url), zarr_format=3, attributes=attributes)
            return Store(url)
        path = Path(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            os.chmod(folder, 0o755)  # mkdtemp's are private
            zarr.create_group(LocalStore(folder), zarr_format=3, attributes=attributes)
            os.rename(folder, path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise ClasslensError(
            f"store {url!r} cannot be made ({cause(error)}): give a folder where you may write"
        ) from None
    return Store(url)


def existing(url: str) -> Store | None:
    """The store that lies there, None where there is nothing; raises ClasslensError for anything else."""
    return None if _root(url) is None else Store(url)


def require_same(url: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises ClasslensError when a store was begun with something else than what is wanted now."""
    for key, value in wanted.items():
        before = found.get(key)
        if key == "weights" and value != before:
            raise ClasslensError(
                f"store {url!r} was begun with model {found.get('model')!r} of other weights ({_short(before)}): give "
                "that model to go on, or another --out"
            )
        if json.loads(json.dumps(value)) != before:
            raise ClasslensError(
                f"store {url!r} was begun with {key.replace('_', ' ')} {_short(before)}, not {_short(value)}: measure "
                "with the same to go on, or give another --out"
            )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return repr(text if len(text) <= 60 else f"{text[:60]}…")


def _group(root: zarr.Group, name: str, layout: Layout, coords: Coords, attrs: Mapping[str, Any]) -> None:
    group = root.create_group(name, overwrite=True)
    _coordinates(group, coords)
    for key, variable in layout.variables.items():
        shape = layout.shape(variable.dims)
        group.create_array(
            key,
            shape=shape,
            dtype=variable.dtype,
            chunks=layout.inner(variable.dims, SHARD),
            shards=(SHARD, *shape[1:]),
            fill_value=variable.fill if variable.dtype.kind == "f" else int(variable.fill),
            dimension_names=variable.dims,
            attributes={"note": variable.note},
        )
    images = layout.shape(("image",))
    for key, dtype, fill in (("measured", "uint8", 0), ("problem", str, "")):
        group.create_array(key, shape=images, dtype=dtype, chunks=(SHARD,), fill_value=fill, dimension_names=("image",))
    group.attrs.update({**attrs, "coordinates": f"{_apart(coords)} problem"})


def _parameters(root: zarr.Group, data: Mapping[str, tuple[tuple[str, ...], Array]], coords: Coords) -> None:
    group = root.create_group("parameters", overwrite=True)
    _coordinates(group, coords)
    for key, (dims, values) in data.items():
        array = group.create_array(key, shape=values.shape, dtype=values.dtype, dimension_names=dims)
        array[...] = values
    group.attrs["coordinates"] = _apart(coords)


def _apart(coords: Coords) -> str:
    """The attribute, written last, that tells a reader which variables are coordinates (CF conventions)."""
    return " ".join(key for key, (dim, _) in coords.items() if key != dim)


def _coordinates(group: zarr.Group, coords: Coords) -> None:
    for key, (dim, values) in coords.items():
        text = values.dtype.kind in "OUT"
        array = group.create_array(
            key, shape=values.shape, dtype=str if text else values.dtype, dimension_names=(dim,), chunks=values.shape
        )
        array[...] = values.astype(object) if text else values


def shards(images: int, unit: int) -> Iterable[range]:
    """The images of each unit of work: whole shards, the last perhaps short."""
    return [range(start, min(start + unit, images)) for start in range(0, images, unit)]
