"""The classes of a model: their names, and the index of a name."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

from classlens.core.arguments import Takes
from classlens.errors import ClasslensError, suggestion

ClassNames = Annotated[
    Sequence[str] | Mapping[int, str] | Mapping[str, str],
    Takes("a list of names in the order of the head's rows, or a dict from the indices 0, 1 … to names"),
]
"""A name for each row of a head: in order, or by index."""


@dataclass(frozen=True)
class Classes:
    """Class names in the order of the head's rows.

    Examples:
        >>> Classes(("tabby, tabby cat", "tench")).index("Tabby cat")
        0
    """

    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def _indices(self) -> dict[str, list[int]]:
        """The classes of every spelling: of the whole name, and of each synonym between commas."""
        indices: dict[str, list[int]] = {}
        for index, name in enumerate(self.names):
            for spelling in {name.lower(), *(part.strip().lower() for part in name.split(","))}:
                indices.setdefault(spelling, []).append(index)
        return indices

    def index(self, target: int | str) -> int:
        """The index of a class given by index, name or synonym; raises ClasslensError with near names."""
        if isinstance(target, str):
            return self._index_of_name(target)
        if not 0 <= target < len(self.names):
            raise ClasslensError(
                f"class {target} is not one of this model's {len(self.names)} classes: give an index from 0 to "
                f"{len(self.names) - 1} or a class name"
            )
        return int(target)

    def of_name(self, name: str) -> list[int]:
        """The classes of this name, or of this synonym where no class has the whole name; a number is a name here."""
        spelling = name.strip().lower()
        matches = self._indices.get(spelling, [])
        return [index for index in matches if self.names[index].lower() == spelling] or matches

    def _index_of_name(self, name: str) -> int:
        spelling = name.strip().lower()
        matches = self.of_name(name)
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise ClasslensError(
                f"class name {name!r} belongs to several classes, indices {', '.join(map(str, matches))}: give the "
                "index"
            )
        if spelling.isdecimal():
            return self.index(int(spelling))
        examples = ", ".join(repr(known[:40]) for known in self.names[:3])
        synonyms = [part.strip() for known in self.names for part in known.split(",")]
        hint = suggestion(name, [*synonyms, *self.names]) or (
            f": give an index from 0 to {len(self.names) - 1}, or a name such as {examples}"
        )
        raise ClasslensError(f"class {name!r} is not one of this model's {len(self.names)} classes{hint}")


def ordered_names(names: ClassNames) -> Sequence[str]:
    """Names in the order of the head's rows; raises ClasslensError for names without an order."""
    if isinstance(names, Mapping):
        try:
            by_index = {int(index): name for index, name in names.items()}
        except (TypeError, ValueError):
            by_index = {}
        if len(by_index) != len(names) or sorted(by_index) != list(range(len(names))):
            raise ClasslensError(
                f"class names were given as a dict with the keys {', '.join(map(repr, list(names)[:5]))}: give a list, "
                "or a dict from the indices 0, 1 … to names"
            )
        return [by_index[index] for index in range(len(names))]
    if not isinstance(names, Sequence):
        raise ClasslensError(f"class names were given as a {type(names).__name__}, which has no order: give a list")
    return names


def make_classes(num_classes: int, names: Sequence[str] | None) -> Classes:
    """The classes of a head with ``num_classes`` rows; ``class 0``, ``class 1`` … without names."""
    if names is None:
        return Classes(tuple(f"class {index}" for index in range(num_classes)))
    if isinstance(names, str):
        raise ClasslensError(
            f"class names were given as one string ({names[:40]!r}): give a list with one name for each row of the head"
        )
    if len(names) != num_classes:
        raise ClasslensError(
            f"{len(names)} class names were given for a model of {num_classes} classes: give one name for each row of "
            "its head, in order"
        )
    return Classes(tuple(map(str, names)))


def read_text(path: str | os.PathLike[str], kind: str) -> str:
    """The text of a UTF-8 file of a kind; raises ClasslensError for one that cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ClasslensError(f"{kind} {str(path)!r} cannot be read ({reason}): give a text file") from None


def read_class_names(path: str | Path) -> list[str]:
    """Class names from a file: one a line, or JSON (a list, or an object from index to name).

    Columns between tabs are names of one class, the last of them first, such as that of its folder and that for people.
    """
    text = read_text(path, "class names file")
    if Path(path).suffix.lower() != ".json":
        return [_of_columns(line.split("\t")) for line in text.splitlines() if line.strip()]
    try:
        value = json.loads(text)
        if isinstance(value, dict):
            value = [value[str(index)] for index in range(len(value))]
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise TypeError
    except (ValueError, TypeError, KeyError):
        raise ClasslensError(
            f"class names file {str(path)!r} has another form: expected a JSON list of names, or an object from class "
            "index to name"
        ) from None
    return value


def _of_columns(columns: list[str]) -> str:
    return ", ".join(dict.fromkeys(column.strip() for column in reversed(columns) if column.strip()))
