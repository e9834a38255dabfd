"""Bytes of a store: a chunk is whole, of its own size, and as it was written, before anything decodes it."""

from __future__ import annotations

import numpy as np
from numcodecs import VLenUTF8, Zstd

from classlens.core.arrays import Array
from classlens.store.metadata import MAX_LENGTH, ArrayMetadata

try:  # zarr needs one or the other, depending on its version
    from google_crc32c import value as crc32c  # type: ignore[import-untyped, unused-ignore]
except ImportError:
    from crc32c import crc32c  # type: ignore[import-not-found, no-redef]

Bytes = bytes | memoryview
_MAGIC = b"\x28\xb5\x2f\xfd"
_CHECKSUM, _UNUSED = 0b100, 0b11000
_NOTHING = 2**64 - 1
"""Offset and length of a chunk that a shard lacks."""
_MAX_TEXT = 2**30
"""Bytes of the text in one chunk."""
_decoder, _texts = Zstd(), VLenUTF8()


class ChunkError(ValueError):
    """Bytes that are not those which were written."""


def check_file(data: Bytes, array: ArrayMetadata) -> None:
    """Raises ChunkError unless ``data`` is a whole file of the array: a shard with all its chunks, or one chunk."""
    if array.inner is None:
        decode_chunk(data, array)
        return
    for start, length in read_index(data[-index_size(array) :], array):
        if start + length > len(data):
            raise ChunkError
        decode_chunk(data[start : start + length], array)


def file_limit(array: ArrayMetadata) -> int:
    """More bytes than any file of the array has."""
    return array.chunks_per_shard * (_chunk_limit(array) + 16) + 4


def index_size(array: ArrayMetadata) -> int:
    """Bytes of the index at the end of a shard."""
    return 16 * array.chunks_per_shard + 4


def read_index(data: Bytes, array: ArrayMetadata) -> list[tuple[int, int]]:
    """Offset and length of every chunk of a shard; raises ChunkError unless all are there."""
    if len(data) != index_size(array) or crc32c(bytes(data[:-4])) != int.from_bytes(data[-4:], "little"):
        raise ChunkError
    places = np.frombuffer(data[:-4], dtype="<u8").reshape(-1, 2)
    if (places == _NOTHING).any() or (places[:, 0] > 2**48).any() or (places[:, 1] > _chunk_limit(array)).any():
        raise ChunkError
    return [(int(start), int(length)) for start, length in places]


def decode_chunk(data: Bytes, array: ArrayMetadata) -> Array:
    """The values of a chunk as bytes, or as text; raises ChunkError for a damaged chunk.

    The size is read before anything is decoded, since a few bytes can stand for any number of zeros.
    """
    size = _content_size(data)
    if array.dtype is not None and size != array.chunk_values * array.dtype.itemsize:
        raise ChunkError
    if array.dtype is None and not 4 + 4 * array.chunk_values <= size <= _MAX_TEXT:
        raise ChunkError
    try:
        content = bytes(_decoder.decode(data))
        if array.dtype is not None:
            return np.frombuffer(content, dtype=np.uint8)
        if int.from_bytes(content[:4], "little") != array.chunk_values:
            raise ChunkError
        return np.asarray(_texts.decode(content))
    except (RuntimeError, ValueError, MemoryError):
        raise ChunkError from None


def _chunk_limit(array: ArrayMetadata) -> int:
    """More bytes than any compressed chunk has: zstd adds less than 1 % to what it cannot compress."""
    size = _MAX_TEXT if array.dtype is None else array.chunk_values * array.dtype.itemsize
    return min(size + size // 100 + 512, MAX_LENGTH * 64)


def _content_size(data: Bytes) -> int:
    """Size that a frame of zstd with a checksum declares; raises ChunkError for any other bytes.

    Source: RFC 8878, section 3.1.1.
    """
    if len(data) < 6 or bytes(data[:4]) != _MAGIC or data[4] & (_CHECKSUM | _UNUSED) != _CHECKSUM:
        raise ChunkError
    descriptor = data[4]
    single_segment, dictionary = descriptor >> 5 & 1, descriptor & 3
    flag = descriptor >> 6
    width = (single_segment, 2, 4, 8)[flag]
    start = 5 + (1 - single_segment) + (0, 1, 2, 4)[dictionary]
    field = bytes(data[start : start + width])
    if not width or len(field) < width:
        raise ChunkError
    return int.from_bytes(field, "little") + (256 if flag == 1 else 0)
