"""Attributes of stores and their groups: the types in which they are written, and in which alone they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from classlens.store.metadata import MAX_LENGTH, MetadataError

MAX_CLASSES = 2**20
"""More classes than any classifier has; tables of a few numbers for each fit the RAM."""


def _text(value: object) -> bool:
    return isinstance(value, str)


def _text_or_none(value: object) -> bool:
    return value is None or isinstance(value, str)


def _truth(value: object) -> bool:
    return isinstance(value, bool)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _text_by_name(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _number(high: int, low: int = 0) -> Callable[[object], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _grid(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_number(2**7, low=1), value))


_COUNT = _number(MAX_LENGTH)

ATTRIBUTES: Mapping[str, Callable[[object], bool]] = {
    "batch_size": _COUNT,
    "class_names": _text,
    "command": _text,
    "data": _text,
    "data_note": _text,
    "device": _text,
    "dtype": _text,
    "format": _COUNT,
    "has_mid": _truth,
    "image_names": _text,
    "images": _COUNT,
    "label_groups": _text_or_none,
    "labels": _text,
    "library": _text_or_none,
    "mask_values": _text_or_none,
    "masks": _text_or_none,
    "memories": _truth,
    "model": _text,
    "num_classes": _number(MAX_CLASSES, low=1),
    "permutations": _number(2**16),
    "pooling": _text_or_none,
    "seed": _number(2**128),
    "sites": _texts,
    "split": _text_or_none,
    "steps": lambda value: value == "all" or _number(MAX_LENGTH, low=2)(value),
    "threads": _COUNT,
    "transform": _text,
    "transform_text": _text,
    "unlabeled_images": _COUNT,
    "versions": _text_by_name,
    "weights": _text,
}
"""Attributes of the root."""

GROUP_ATTRIBUTES: Mapping[str, Callable[[object], bool]] = {
    "blocks": _number(2**12),
    "condition": _text,
    "coordinates": _text,
    "decoder": _text,
    "doubled": _truth,
    "drawn": _truth,
    "grid": _grid,
    "method": _text,
    "metric": _text,
    "mosaics": _truth,
    "note": _text,
    "ranks": _text_or_none,
}
"""Attributes of a group."""


def check_attributes(attributes: Mapping[str, Any], known: Mapping[str, Callable[[object], bool]]) -> None:
    """Raises MetadataError for an attribute of another type or out of bounds."""
    for name, value in attributes.items():
        if name in known and not known[name](value):
            text = repr(value)
            raise MetadataError(f"its {name} is {text if len(text) <= 60 else f'{text[:60]}…'}")
