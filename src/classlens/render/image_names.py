"""Names of the images of a record: each of them once, and short ones for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import PurePath


def unique_name(name: str, taken: set[str]) -> str:
    """The name, with a number where an image of an earlier trace has it."""
    numbered = (f"{name} ({number})" for number in count(2))
    return name if name not in taken else next(candidate for candidate in numbered if candidate not in taken)


def labels_of(names: Sequence[str]) -> list[str]:
    """The last part of each path, with folders before it where images of several folders share it."""
    parts = [PurePath(name).parts or (name,) for name in names]
    lengths = [1] * len(names)
    while True:
        labels = ["/".join(path[-length:]) for path, length in zip(parts, lengths, strict=True)]
        shared = Counter(labels)
        longer = [
            length + (shared[label] > 1 and length < len(path))
            for path, length, label in zip(parts, lengths, labels, strict=True)
        ]
        if longer == lengths:
            return labels
        lengths = longer
