"""Files of a store as bytes, without zarr: its groups, arrays and metadata."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec

from classlens.store.atomic import atomic_write
from classlens.store.guard import METADATA, damaged, foreign_form, require_regular
from classlens.store.metadata import MAX_METADATA, ArrayMetadata, read_array, read_group


class StoreFiles:
    """Files of a store, as bytes."""

    def __init__(self, url: str) -> None:
        self._url, self._local = url, "://" not in url
        self._system, self._root = fsspec.core.url_to_fs(url)

    def folders(self, group: str) -> list[str]:
        """Names of what lies in the store or in a group, other than its metadata."""
        entries = self._system.ls(f"{self._root}/{group}".rstrip("/"), detail=True)
        names = [entry["name"].rstrip("/").rpartition("/")[2] for entry in entries if entry["type"] == "directory"]
        return sorted(names)

    def read(self, key: str, limit: int = MAX_METADATA) -> bytes | None:
        """The bytes of a file; None where it is missing.

        Raises ClasslensError for a link, a device or a pipe, and for a local file of more than ``limit`` bytes.
        """
        if self._local:
            require_regular(self._url, self._url, key, limit)
        with suppress(FileNotFoundError, NotADirectoryError):
            return bytes(self._system.cat_file(f"{self._root}/{key}"))
        return None

    def write(self, key: str, data: bytes) -> None:
        """Write a file, completely or not at all."""
        if self._local:
            with atomic_write(Path(self._root) / key) as temporary:
                temporary.write_bytes(data)
        else:
            self._system.pipe_file(f"{self._root}/{key}", data)

    def remove(self, key: str) -> None:
        """Remove a file, or a folder in its place; a link is removed, not followed."""
        path = f"{self._root}/{key}"
        is_folder = self._system.isdir(path) and not (self._local and os.path.islink(path))
        with suppress(FileNotFoundError):
            self._system.rm(path, recursive=True) if is_folder else self._system.rm_file(path)

    def group(self, name: str) -> dict[str, Any] | None:
        """Attributes of a group; None for what is no group. Raises ClasslensError for those of another form."""
        data = self.read(f"{name}/{METADATA}")
        if data is None:
            return None
        with foreign_form(self._url, f"{name}/{METADATA}"):
            return read_group(data)

    def array(self, group: str, name: str) -> ArrayMetadata:
        """Metadata of an array; raises ClasslensError for another form, and where they are missing."""
        key = f"{group}/{name}/{METADATA}"
        data = self.read(key)
        if data is None:
            raise damaged(self._url, key)
        with foreign_form(self._url, key):
            return read_array(data)

    def complete_groups(self) -> list[str]:
        """Sorted names of the groups, without those that a stopped run left half made."""
        return [name for name in self.folders("") if "coordinates" in (self.group(name) or {})]

    def check_group(self, group: str) -> None:
        """Raises ClasslensError unless all metadata of a group have the form in which classlens writes them.

        zarr reads them side by side, and prints all errors but the first.
        """
        arrays = {name: self.array(group, name) for name in self.folders(group)}
        for name in self.missing_coordinates(group, arrays):
            raise damaged(self._url, f"{group}/{name}/{METADATA}")

    def missing_coordinates(self, group: str, arrays: Mapping[str, ArrayMetadata]) -> list[str]:
        """Sorted names of the coordinates that a complete group has by its attributes and dims, but not as arrays."""
        named = str((self.group(group) or {})["coordinates"]).split()
        return sorted({*named, *(dim for array in arrays.values() for dim in array.dims)} - set(arrays))
