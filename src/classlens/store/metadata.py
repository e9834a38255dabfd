"""Metadata of a store: the form in which it is written, and in which alone it is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

SHARD = 64
"""Images per shard."""
PER_IMAGE = ("content", "problem", "measured")
"""Arrays of every group that have one chunk for each shard, the markers last."""

# Bounds on stores of others, far above what a measurement needs.
MAX_METADATA = 2**24
MAX_LENGTH = 2**26
_MAX_CHUNK = 2**28
_MAX_SHARD = 2**32
_MAX_DIMS = 8
_MAX_DEPTH = 8

_ARRAY_FIELDS = {
    *("attributes", "chunk_grid", "chunk_key_encoding", "codecs", "data_type", "dimension_names", "fill_value"),
    *("node_type", "shape", "storage_transformers", "zarr_format"),
}
_GROUP_FIELDS = {"attributes", "node_type", "zarr_format"}
_DTYPES = ("int8", "int16", "int32", "int64", "uint8", "float32", "float64")
_TEXT = "string"
ZSTD = {"name": "zstd", "configuration": {"level": 0, "checksum": True}}
_LITTLE_ENDIAN = {"name": "bytes", "configuration": {"endian": "little"}}
_INDEX = [_LITTLE_ENDIAN, {"name": "crc32c"}]


class MetadataError(ValueError):
    """Metadata of another form; the message says what is not as classlens writes it."""


@dataclass(frozen=True)
class ArrayMetadata:
    """An array of a store.

    Args:
        shape: its shape.
        dims: names of its dims.
        dtype: its NumPy dtype; None for text.
        chunk: shape of what one file holds: a shard, or a chunk.
        inner: shape of the chunks of a shard; None for an array without shards.
    """

    shape: tuple[int, ...]
    dims: tuple[str, ...]
    dtype: np.dtype[Any] | None
    chunk: tuple[int, ...]
    inner: tuple[int, ...] | None

    @cached_property
    def chunk_values(self) -> int:
        """Values of one compressed chunk."""
        return prod(self.inner or self.chunk)

    @cached_property
    def chunks_per_shard(self) -> int:
        """Compressed chunks in one file."""
        return prod(self.chunk) // max(self.chunk_values, 1)

    @property
    def files(self) -> list[str]:
        """Keys of the files of the array, below its own, in order of the images."""
        rest = "/0" * (len(self.shape) - 1)
        return [f"c/{number}{rest}" for number in range(-(-self.shape[0] // max(self.chunk[0], 1)))]


def read_array(data: bytes) -> ArrayMetadata:
    """The metadata of an array; raises MetadataError for any other form than that which classlens writes."""
    document = _document(data, "array", _ARRAY_FIELDS)
    shape, dims = document["shape"], document["dimension_names"]
    _require(_is_shape(shape, low=0), "shape", shape)
    named = isinstance(dims, list) and all(isinstance(dim, str) and dim for dim in dims)
    _require(named and len(dims) == len(set(dims)) == len(shape), "dimension_names", dims)
    name = document["data_type"]
    _require(isinstance(name, str) and name in (*_DTYPES, _TEXT), "data_type", name)
    dtype = None if name == _TEXT else np.dtype(name)
    _require(_is_fill_value(document["fill_value"], dtype), "fill_value", document["fill_value"])
    attributes = document["attributes"]
    _require(set(attributes) <= {"note"} and all(isinstance(v, str) for v in attributes.values()), "attributes", "")
    encoding = {"name": "default", "configuration": {"separator": "/"}}
    _require(document["chunk_key_encoding"] == encoding, "chunk_key_encoding", document["chunk_key_encoding"])
    _require(document["storage_transformers"] == [], "storage_transformers", document["storage_transformers"])
    chunk, inner = _chunks(document, shape, dtype)
    return ArrayMetadata(tuple(shape), tuple(dims), dtype, chunk, inner)


def read_group(data: bytes) -> dict[str, Any]:
    """The attributes of a group; raises MetadataError for any other form than that which classlens writes."""
    attributes: dict[str, Any] = _document(data, "group", _GROUP_FIELDS)["attributes"]
    coordinates = attributes.get("coordinates", "")
    _require(isinstance(coordinates, str), "coordinates", coordinates)
    return attributes


def read_json(data: bytes) -> Any:
    """A JSON document of bounded size and depth; raises MetadataError for anything else."""
    _require(len(data) <= MAX_METADATA, "size", len(data))
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise MetadataError("it is no JSON") from None
    if _depth(document) > _MAX_DEPTH:
        raise MetadataError("its JSON is too deep")
    return document


def _document(data: bytes, kind: str, fields: set[str]) -> dict[str, Any]:
    document = read_json(data)
    if not isinstance(document, dict):
        raise MetadataError("it is no JSON object")
    _require(document.get("zarr_format") == 3, "zarr_format", document.get("zarr_format"))
    _require(document.get("node_type") == kind, "node_type", document.get("node_type"))
    if set(document) != fields:
        raise MetadataError(f"it has other fields, such as {min(set(document) ^ fields)!r}")
    _require(isinstance(document["attributes"], dict), "attributes", document["attributes"])
    return document


def _chunks(
    document: Mapping[str, Any], shape: list[int], dtype: np.dtype[Any] | None
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Shapes of what a file holds and of its chunks."""
    grid = document["chunk_grid"]
    chunk: Any = _setting(grid, "chunk_shape")
    regular = {"name": "regular", "configuration": {"chunk_shape": chunk}}
    _require(grid == regular and _is_shape(chunk, low=0) and len(chunk) == len(shape), "chunk_grid", grid)
    codecs = document["codecs"]
    serializer: Any = {"name": "vlen-utf8", "configuration": {}} if dtype is None else _LITTLE_ENDIAN
    if dtype is not None and dtype.itemsize == 1:
        serializer = {"name": "bytes"}
    plain = [serializer, ZSTD]
    inner: Any = None
    if codecs != plain:
        first = codecs[0] if isinstance(codecs, list) and len(codecs) == 1 else None
        inner = _setting(first, "chunk_shape")
        expected = {"chunk_shape": inner, "codecs": plain, "index_codecs": _INDEX, "index_location": "end"}
        _require(first == {"name": "sharding_indexed", "configuration": expected}, "codecs", codecs)
        fits = _is_shape(inner, low=1) and len(inner) == len(chunk) and inner[0] == SHARD
        _require(fits and all(size % part == 0 for size, part in zip(chunk, inner, strict=True)), "codecs", codecs)
        _require(chunk == [SHARD, *shape[1:]], "chunk_grid", grid)
    else:
        _require(chunk in (shape, [SHARD]), "chunk_grid", grid)
    size = 1 if dtype is None else dtype.itemsize
    _require(prod(inner or chunk) * size <= _MAX_CHUNK and prod(chunk) * size <= _MAX_SHARD, "shape", shape)
    return tuple(chunk), None if inner is None else tuple(inner)


def _setting(named: object, key: str) -> object:
    """A setting of a chunk grid or a codec."""
    configuration = named.get("configuration") if isinstance(named, dict) else None
    return configuration.get(key) if isinstance(configuration, dict) else None


def _is_shape(value: object, low: int) -> bool:
    return (
        isinstance(value, list)
        and 1 <= len(value) <= _MAX_DIMS
        and all(type(size) is int and low <= size <= MAX_LENGTH for size in value)
    )


def _is_fill_value(value: object, dtype: np.dtype[Any] | None) -> bool:
    if dtype is None:
        return value == ""
    if dtype.kind == "f":
        return value == "NaN" or (type(value) in (int, float) and abs(value) < 1e30)  # type: ignore[arg-type]
    return type(value) is int and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max


def _depth(document: object) -> int:
    """Levels of lists and objects."""
    level, depth = [document], 0
    while level:
        inner = [list(item.values()) if isinstance(item, dict) else item for item in level]
        level = [item for items in inner if isinstance(items, list) for item in items]
        depth += 1
    return depth


def _require(holds: bool, name: str, value: object) -> None:
    if not holds:
        text = json.dumps(value, default=str)
        raise MetadataError(f"its {name} is {text if len(text) <= 80 else f'{text[:80]}…'}")
