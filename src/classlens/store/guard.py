"""A store as it is read: regular files alone, in the form in which they are written, whole or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from zarr.abc.buffer import Buffer
from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import BufferPrototype, default_buffer_prototype
from zarr.storage import LocalStore, WrapperStore

from classlens.errors import ClasslensError
from classlens.store.attributes import ATTRIBUTES, GROUP_ATTRIBUTES, check_attributes
from classlens.store.chunks import ChunkError, check_file, decode_chunk, file_limit, read_index
from classlens.store.metadata import MAX_METADATA, PER_IMAGE, ArrayMetadata, MetadataError, read_array, read_group

ATTRIBUTE = "classlens"
"""Attribute of the root that makes a Zarr group a store of classlens."""
METADATA = "zarr.json"
_OTHER_VERSIONS = (".zarray", ".zattrs", ".zgroup", ".zmetadata")


class GuardedStore(WrapperStore[Store]):
    """Every file is checked before zarr decodes it; raises ClasslensError for one of others, and for a damaged one.

    Args:
        store: the files.
        url: where they lie.
        writing: whether a run writes to the store; it measures what is missing.
    """

    def __init__(self, store: Store, url: str, *, writing: bool = False) -> None:
        super().__init__(store)
        self.url, self._writing = url, writing
        self._arrays: dict[str, ArrayMetadata] = {}

    def _with_store(self, store: Store) -> GuardedStore:
        return GuardedStore(store, self.url, writing=self._writing)

    def with_read_only(self, read_only: bool = False) -> GuardedStore:
        return self._with_store(self._store.with_read_only(read_only))

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        group, array, file = _split(key)
        if file.rpartition("/")[2] in _OTHER_VERSIONS:
            return None
        if file == METADATA:
            self._require_regular(key, MAX_METADATA)
            value = await self._store.get(key, prototype, byte_range)
            if value is not None:
                self._check_metadata(key, group, array, value.to_bytes())
            return value
        metadata = await self._metadata(f"{group}/{array}")
        self._require_regular(key, file_limit(metadata))
        value = await self._store.get(key, prototype, byte_range)
        if value is None:
            await self._check_missing(key, group, array, file, metadata)
            return None
        with damage(self.url, key):
            _check(value.as_numpy_array().data, metadata, byte_range)
        return value

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def _get_many(self, requests: Iterable[Any]) -> Any:
        for key, prototype, byte_range in requests:
            yield key, await self.get(key, prototype, byte_range)

    async def set(self, key: str, value: Buffer) -> None:
        self._require_regular(key, None)
        await self._store.set(key, value)
        self._arrays.clear()

    async def delete_dir(self, prefix: str) -> None:
        await self._store.delete_dir(prefix)
        self._arrays.clear()

    def _check_metadata(self, key: str, group: str, array: str, data: bytes) -> None:
        with foreign_form(self.url, key):
            if array:
                self._arrays[f"{group}/{array}"] = read_array(data)
            elif group:
                check_attributes(read_group(data), GROUP_ATTRIBUTES)
            else:
                attributes = read_group(data).get(ATTRIBUTE)
                check_attributes(attributes if isinstance(attributes, dict) else {}, ATTRIBUTES)

    async def _metadata(self, array: str) -> ArrayMetadata:
        if array not in self._arrays:
            await self.get(f"{array}/{METADATA}", default_buffer_prototype())
        if array not in self._arrays:
            raise damaged(self.url, f"{array}/{METADATA}")
        return self._arrays[array]

    async def _check_missing(self, key: str, group: str, array: str, file: str, metadata: ArrayMetadata) -> None:
        """Raises ClasslensError for a file that a finished measurement has written; it would read as fill values."""
        if self._writing:
            return
        if metadata.inner is None and array not in PER_IMAGE[:-1]:
            raise damaged(self.url, key)
        marker = f"c/{file.split('/')[1]}"
        value = await self.get(f"{group}/measured/{marker}", default_buffer_prototype())
        assert value is not None, "a missing marker is damage"
        if decode_chunk(value.to_bytes(), self._arrays[f"{group}/measured"]).any():
            raise damaged(self.url, key)

    def _require_regular(self, key: str, limit: int | None) -> None:
        """Raises ClasslensError for a link, a device or a pipe on the way to a local file, and for a file too large."""
        if isinstance(self._store, LocalStore):
            require_regular(self.url, str(self._store.root), key, limit)


def require_regular(url: str, root: str, key: str, limit: int | None) -> None:
    """Raises ClasslensError unless a key below a local root is a regular file of at most ``limit`` bytes, or absent."""
    path = root
    parts = key.split("/")
    for number, part in enumerate(parts, start=1):
        path = os.path.join(path, part)
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        is_file = number == len(parts)
        if not is_file and not stat.S_ISLNK(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            return  # a file among the groups, such as .DS_Store
        if stat.S_ISLNK(status.st_mode) or (is_file and not stat.S_ISREG(status.st_mode)):
            kind = "a link" if stat.S_ISLNK(status.st_mode) else "no file"
            raise ClasslensError(
                f"store {url!r} is not used: {'/'.join(parts[:number])!r} is {kind}, which classlens does not write; "
                "copy what it stands for, or give another store"
            )
        if is_file and limit is not None and status.st_size > limit:
            raise damaged(url, key)


@contextmanager
def damage(url: str, key: str) -> Iterator[None]:
    """Raises ClasslensError in the place of ChunkError."""
    try:
        yield
    except ChunkError:
        raise damaged(url, key) from None


@contextmanager
def foreign_form(url: str, key: str) -> Iterator[None]:
    """Raises ClasslensError in the place of MetadataError."""
    try:
        yield
    except MetadataError as error:
        raise ClasslensError(
            f"store {url!r} is not used: {key!r} is not as classlens writes it, since {error}; restore the file, or "
            "measure into another store"
        ) from None


def damaged(url: str, key: str) -> ClasslensError:
    """The error for a file that is missing, cut off or changed."""
    array = "/".join(key.split("/")[:2])
    return ClasslensError(
        f"store {url!r} is damaged: file {key!r} of array {array!r} is missing, cut off or changed; run the command "
        "that wrote the store again, which measures this part anew, and see `classlens check-store` for all damage"
    )


def _check(data: memoryview, array: ArrayMetadata, byte_range: ByteRequest | None) -> None:
    if byte_range is None:
        check_file(data, array)
    elif isinstance(byte_range, SuffixByteRequest) and array.inner is not None:
        read_index(data, array)
    elif isinstance(byte_range, RangeByteRequest):
        decode_chunk(data, array)
    else:
        raise ChunkError


def _split(key: str) -> tuple[str, str, str]:
    """Group, array and file of a key; the root and a group have no array."""
    parts = key.split("/")
    if len(parts) == 1:
        return "", "", parts[0]
    if len(parts) == 2:
        return parts[0], "", parts[1]
    return parts[0], parts[1], "/".join(parts[2:])
