"""Writing a store: labeled arrays in Zarr v3, a shard of images at a time, each followed by its marker."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from classlens.core.arrays import Array
from classlens.errors import ClasslensError, cause
from classlens.store.backend import ATTRIBUTE, FORMAT, find_root, is_complete, is_local, open_backend, root_attributes
from classlens.store.schema import MEASURED, SKIPPED, Coords, Schema

SHARD = 64
"""Images per shard."""


class Store:
    """A store open for writing; made by ``create_store`` or ``find_store``."""

    def __init__(self, url: str) -> None:
        root = find_root(url)
        if root is None:
            raise ClasslensError(f"store {url!r} is gone: it was moved or deleted while it was being written")
        self.url = url
        self._root = root
        self.attributes: dict[str, Any] = root_attributes(root)

    def status(self, group: str) -> Array:
        """uint8 ``[image]``: 0 for a pending image, ``MEASURED`` or ``SKIPPED``."""
        return np.asarray(self._array(group, "measured")[:])

    def problems(self, group: str) -> dict[int, str]:
        """Why images were skipped, by index."""
        skipped = np.flatnonzero(self.status(group) == SKIPPED)
        reasons = self._array(group, "problem")
        return {int(index): str(np.asarray(reasons[index : index + 1])[0]) for index in skipped}

    def write(self, group: str, start: int, values: Mapping[str, Array], problems: Mapping[int, str]) -> None:
        """Write images from ``start`` on, the marker last; ``problems`` are by index of the data set.

        The other images of their shards stay as they are.
        """
        count = len(next(iter(values.values())))
        images = slice(start, start + count)
        with self._write_errors():
            for name, value in values.items():
                self._array(group, name)[images] = value
            status = np.full(count, MEASURED, dtype=np.uint8)
            if problems:
                reasons = np.array([problems.get(index, "") for index in range(start, start + count)], dtype=object)
                self._array(group, "problem")[images] = reasons
                status[[index - start for index in problems]] = SKIPPED
            self._array(group, "measured")[images] = status

    def add_group(self, name: str, schema: Schema) -> None:
        """Make a group with all images pending; raises ClasslensError for an existing one with other arrays."""
        if not self._has(name):
            with self._write_errors():
                _create_group(self._root, name, schema)
        elif other := self._other_array(name, schema):
            raise ClasslensError(
                f"store {self.url!r} holds {name!r} with another {other!r}: it was measured by another definition; "
                "give another --out"
            )

    def group_attributes(self, name: str) -> dict[str, Any]:
        """Attributes of a group."""
        return dict(self._root[name].attrs)

    def write_parameters(self, data: Mapping[str, tuple[tuple[str, ...], Array]], coords: Coords) -> None:
        """Write the group ``parameters``, whose arrays have no dim ``image``; an earlier one is replaced."""
        with self._write_errors():
            _create_parameters(self._root, data, coords)

    def has_parameters(self) -> bool:
        """Whether the group ``parameters`` is complete."""
        return self._has("parameters")

    def clear_leftovers(self) -> None:
        """Remove half-written files of a killed writer; only while the store is locked."""
        if is_local(self.url):
            for path in Path(self.url).rglob("*.partial"):
                path.unlink(missing_ok=True)

    def _other_array(self, group: str, schema: Schema) -> str | None:
        """The name of an array of the schema that the group has in another form."""
        arrays = {name: (schema.shape(v.dims), v.dtype, v.note) for name, v in schema.variables.items()}
        for name, expected in arrays.items():
            array: Any = self._root.get(f"{group}/{name}")
            if array is None or (array.shape, array.dtype, array.attrs.get("note")) != expected:
                return name
        for name, (_, values) in schema.coords.items():
            stored, values = np.asarray(self._array(group, name)[:]), np.asarray(values)
            if not np.array_equal(stored, values, equal_nan=values.dtype.kind == "f"):
                return name
        return None

    def _has(self, name: str) -> bool:
        group = self._root.get(name)
        return isinstance(group, zarr.Group) and is_complete(group)

    def _array(self, group: str, name: str) -> Any:
        return self._root[f"{group}/{name}"]

    @contextmanager
    def _write_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ClasslensError(
                f"store {self.url!r} cannot be written ({cause(error)}): make room or restore access, and run the "
                "same command again to resume"
            ) from error


def create_store(url: str, attributes: Mapping[str, Any]) -> Store:
    """Make an empty store with these attributes, which a resumed run compares.

    On a local disk it is made under another name and renamed, so that an existing store has all of its attributes.
    """
    attrs = {ATTRIBUTE: {"format": FORMAT, **attributes}}
    try:
        if not is_local(url):
            zarr.create_group(open_backend(url), zarr_format=3, attributes=attrs)
            return Store(url)
        path = Path(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            os.chmod(folder, 0o755)  # mkdtemp makes private folders
            zarr.create_group(open_backend(folder), zarr_format=3, attributes=attrs)
            os.rename(folder, path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise ClasslensError(
            f"store {url!r} cannot be made ({cause(error)}): give a folder where you may write"
        ) from None
    return Store(url)


def find_store(url: str) -> Store | None:
    """The store at a URL; None where nothing lies. Raises ClasslensError for anything else."""
    return None if find_root(url) is None else Store(url)


def partition_ranges(images: int, partition: int) -> list[range]:
    """The images of each partition: whole shards; the last partition may be short."""
    return [range(start, min(start + partition, images)) for start in range(0, images, partition)]


def _create_group(root: zarr.Group, name: str, schema: Schema) -> None:
    group = root.create_group(name, overwrite=True)
    _write_coords(group, schema.coords)
    for key, variable in schema.variables.items():
        shape = schema.shape(variable.dims)
        group.create_array(
            key,
            shape=shape,
            dtype=variable.dtype,
            chunks=schema.chunk(variable.dims, SHARD),
            shards=(SHARD, *shape[1:]),
            fill_value=variable.fill if variable.dtype.kind == "f" else int(variable.fill),
            dimension_names=variable.dims,
            attributes={"note": variable.note},
        )
    images = schema.shape(("image",))
    for key, dtype, fill in (("measured", "uint8", 0), ("problem", str, "")):
        group.create_array(key, shape=images, dtype=dtype, chunks=(SHARD,), fill_value=fill, dimension_names=("image",))
    group.attrs.update({**schema.attrs, "coordinates": f"{_coordinate_names(schema.coords)} problem"})


def _create_parameters(root: zarr.Group, data: Mapping[str, tuple[tuple[str, ...], Array]], coords: Coords) -> None:
    group = root.create_group("parameters", overwrite=True)
    _write_coords(group, coords)
    for key, (dims, values) in data.items():
        array = group.create_array(key, shape=values.shape, dtype=values.dtype, dimension_names=dims)
        array[...] = values
    group.attrs["coordinates"] = _coordinate_names(coords)


def _coordinate_names(coords: Coords) -> str:
    """The CF attribute ``coordinates``, which marks a complete group."""
    return " ".join(key for key, (dim, _) in coords.items() if key != dim)


def _write_coords(group: zarr.Group, coords: Coords) -> None:
    for key, (dim, values) in coords.items():
        text = values.dtype.kind in "OUT"
        array = group.create_array(
            key, shape=values.shape, dtype=str if text else values.dtype, dimension_names=(dim,), chunks=values.shape
        )
        array[...] = values.astype(object) if text else values
