"""Writing a store: labeled arrays in Zarr v3, a shard of images at a time, each followed by its marker."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Int
from zarr.codecs import ZstdCodec

from classlens.core.arrays import Array
from classlens.errors import ClasslensError, cause
from classlens.store.backend import FORMAT, find_root, is_complete, is_local, open_backend, root_attributes
from classlens.store.damage import find_damage
from classlens.store.files import StoreFiles
from classlens.store.guard import ATTRIBUTE, METADATA
from classlens.store.metadata import PER_IMAGE, SHARD
from classlens.store.schema import MEASURED, SKIPPED, Coords, Schema

_COMPRESSION = ZstdCodec(level=0, checksum=True)
_MAX_FILE = 2**32


class Store:
    """A store open for writing; made by ``create_store`` or ``find_store``."""

    def __init__(self, url: str) -> None:
        root = find_root(url, writing=True)
        if root is None:
            raise ClasslensError(f"store {url!r} is gone: it was moved or deleted while it was being written")
        self.url = url
        self._root = root
        self._lost: set[tuple[str, str]] = set()
        self.attributes: dict[str, Any] = root_attributes(root)

    def status(self, group: str) -> Array:
        """uint8 ``[image]``: 0 for a pending image, ``MEASURED`` or ``SKIPPED``."""
        return np.asarray(self._array(group, "measured")[:])

    def problems(self, group: str) -> dict[int, str]:
        """Why images were skipped, by index."""
        skipped = np.flatnonzero(self.status(group) == SKIPPED)
        reasons = self._array(group, "problem")
        return {int(index): str(np.asarray(reasons[index : index + 1])[0]) for index in skipped}

    def write(
        self,
        group: str,
        start: int,
        values: Mapping[str, Array],
        problems: Mapping[int, str],
        content: Int[np.ndarray, " image"] | None = None,
    ) -> None:
        """Write images from ``start`` on, the marker last; ``problems`` are by index of the data set.

        The other images of their shards stay as they are. ``content`` tells versions of the images apart.
        """
        count = len(next(iter(values.values())))
        images = slice(start, start + count)
        with self._write_errors():
            for name, value in values.items():
                self._array(group, name)[images] = value
            self._array(group, "content")[images] = np.zeros(count, dtype=np.int64) if content is None else content
            reasons = np.array([problems.get(index, "") for index in range(start, start + count)], dtype=object)
            self._array(group, "problem")[images] = reasons
            status = np.full(count, MEASURED, dtype=np.uint8)
            status[[index - start for index in problems]] = SKIPPED
            self._array(group, "measured")[images] = status

    def add_group(self, name: str, schema: Schema) -> None:
        """Make a group with all images pending; raises ClasslensError for an existing one with other arrays."""
        if not self._has(name):
            with self._write_errors():
                _create_group(self._root, name, schema)
            return
        lost = {key: coord for key, coord in schema.coords.items() if (name, key) in self._lost}
        if lost:
            with self._write_errors():
                _write_coords(self._group(name), lost)
        if other := self._other_array(name, schema):
            raise ClasslensError(
                f"store {self.url!r} holds {name!r} with another {other!r}: it was measured by another definition; "
                "give another --out"
            )

    def has_array(self, group: str, name: str) -> bool:
        """Whether a group has an array, which stores of earlier versions may lack."""
        return name in self._group(group)

    def group_attributes(self, name: str) -> dict[str, Any]:
        """Attributes of a group."""
        return dict(self._root[name].attrs)

    def write_group(
        self,
        name: str,
        data: Mapping[str, tuple[tuple[str, ...], Array]],
        coords: Coords,
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a group whose arrays have no dim ``image``, such as ``parameters``; an earlier one is replaced."""
        with self._write_errors():
            _create_whole_group(self._root, name, data, coords, attrs or {})

    def has_group(self, name: str) -> bool:
        """Whether a group is complete, and no file of it was lost."""
        return self._has(name) and name not in {group for group, _ in self._lost}

    def read_file(self, name: str) -> bytes | None:
        """A file beside those of zarr; None where there is none."""
        return self._files.read(name, _MAX_FILE)

    def write_file(self, name: str, data: bytes) -> None:
        """Write a file beside those of zarr, completely or not at all."""
        with self._write_errors():
            self._files.write(name, data)

    def groups(self) -> list[str]:
        """Sorted names of the complete groups."""
        return self._files.complete_groups()

    def texts(self, group: str, name: str) -> list[str] | None:
        """A coordinate of text, such as the names of the images; None for a group without it."""
        return [str(text) for text in self._array(group, name)[:]] if name in self._group(group) else None

    def finished_values(self, group: str, name: str) -> dict[str, int]:
        """Whole numbers of the finished images by the names of these; empty for a group without such an array."""
        if not {name, "measured"} <= set(self._group(group)):
            return {}
        finished = np.flatnonzero(self.status(group))
        names, values = self.texts(group, "image") or [], np.asarray(self._array(group, name)[:])
        return {names[image]: int(values[image]) for image in finished}

    def values(self, group: str, name: str) -> Array:
        """All values of an array."""
        return np.asarray(self._array(group, name)[:])

    def size(self, group: str, name: str, axis: int) -> int:
        """Size of an array along an axis."""
        return int(self._array(group, name).shape[axis])

    def unfilled(self, group: str, name: str) -> int:
        """Number of measured images whose values of an array are all below 0, as fill values are."""
        below = (np.asarray(self._array(group, name)[:]) < 0).all(axis=1)
        return int((below & (self.status(group) == MEASURED)).sum())

    def reset(self, group: str, shards: Iterable[int]) -> None:
        """Make the images of these shards pending."""
        with self._write_errors():
            for shard in shards:
                self._files.remove(f"{group}/measured/c/{shard}")  # a damaged marker could not be read
                self._array(group, "measured")[shard * SHARD : (shard + 1) * SHARD] = 0

    def repair(self) -> int:
        """Make images pending whose files are damaged; ``add_group`` and ``write_group`` write the rest anew.

        Returns the number of damaged files. Raises ClasslensError where metadata are damaged.
        """
        damages = find_damage(self.url)
        for damage in damages:
            if damage.file == METADATA:
                raise ClasslensError(
                    f"store {self.url!r} is damaged: {damage.key!r} is missing or not as classlens writes it; remove "
                    f"the folder {damage.group!r} in the store, and run the same command to measure it anew"
                )
        for group in {damage.group for damage in damages}:
            self.reset(group, sorted({d.shard for d in damages if d.group == group and d.shard is not None}))
        for damage in damages:
            if damage.shard is None:
                self._lost.add((damage.group, damage.array))
            if damage.array != "measured":
                self._files.remove(damage.key)
        return len(damages)

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

    def _group(self, name: str) -> zarr.Group:
        return self._root.require_group(name)

    @cached_property
    def _files(self) -> StoreFiles:
        return StoreFiles(self.url)

    def _has(self, name: str) -> bool:
        group = self._root.get(name)
        return isinstance(group, zarr.Group) and is_complete(group)

    def _array(self, group: str, name: str) -> Any:
        return self._root[f"{group}/{name}"]

    @contextmanager
    def _write_errors(self) -> Iterator[None]:
        try:
            with _whole_files():
                yield
        except OSError as error:
            raise ClasslensError(
                f"store {self.url!r} cannot be written ({cause(error)}): make room or restore access, and run the "
                "same command again to resume"
            ) from error


@contextmanager
def _whole_files() -> Iterator[None]:
    """Every finished shard has all its files: one without would be told by nothing from one that lost a file."""
    with zarr.config.set({"array.write_empty_chunks": True}):
        yield


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


def find_in_folder(folder: Path, name: str) -> tuple[str, Store | None]:
    """The URL of a store in an output folder, and the store where a run has begun.

    Raises ClasslensError for a folder that holds other files and no such store.
    """
    url = str(folder / name)
    begun = find_store(url)
    if begun is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ClasslensError(f"output {str(folder)!r} holds other files and no {name}: give an empty or new --out")
    return url, begun


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
            compressors=_COMPRESSION,
            fill_value=variable.fill if variable.dtype.kind == "f" else int(variable.fill),
            dimension_names=variable.dims,
            attributes={"note": variable.note},
        )
    images = schema.shape(("image",))
    types: dict[str, tuple[Any, int | str]] = {"content": ("int64", 0), "problem": (str, ""), "measured": ("uint8", 0)}
    for key in PER_IMAGE:
        dtype, fill = types[key]
        array = _create_array(group, key, images, dtype, ("image",), (SHARD,), fill)
    array[:] = 0  # a pending image differs from one whose marker was lost
    group.attrs.update({**schema.attrs, "coordinates": f"{_coordinate_names(schema.coords)} problem"})


def _create_whole_group(
    root: zarr.Group,
    name: str,
    data: Mapping[str, tuple[tuple[str, ...], Array]],
    coords: Coords,
    attrs: Mapping[str, Any],
) -> None:
    group = root.create_group(name, overwrite=True)
    _write_coords(group, coords)
    for key, (dims, values) in data.items():
        array = _create_array(group, key, values.shape, values.dtype, dims, values.shape, 0)
        array[...] = values
    group.attrs.update({**attrs, "coordinates": _coordinate_names(coords)})


def _coordinate_names(coords: Coords) -> str:
    """The CF attribute ``coordinates``, which marks a complete group."""
    return " ".join(key for key, (dim, _) in coords.items() if key != dim)


def _write_coords(group: zarr.Group, coords: Coords) -> None:
    for key, (dim, values) in coords.items():
        text = values.dtype.kind in "OUT"
        dtype: Any = str if text else values.dtype
        array = _create_array(group, key, values.shape, dtype, (dim,), values.shape, "" if text else 0)
        array[...] = values.astype(object) if text else values


def _create_array(
    group: zarr.Group,
    key: str,
    shape: tuple[int, ...],
    dtype: Any,
    dims: tuple[str, ...],
    chunks: tuple[int, ...],
    fill: int | str,
) -> Any:
    return group.create_array(
        key,
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        compressors=_COMPRESSION,
        fill_value=fill,
        dimension_names=dims,
        overwrite=True,
    )
