"""Edits as text, for the command line and for addresses: ``AblateHeads:heads=0,3:blocks=5``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from classlens.errors import ClasslensError
from classlens.render.edit_record.fields import MOST_INDICES, EditOption, Value, edit_options

_EXAMPLE = "AblateHeads:heads=0,3:blocks=5"
_INDICES = re.compile(r"\d{1,9}(?:-\d{1,9})?(?:,\d{1,9}(?:-\d{1,9})?)*")


def edit_of_text(text: str) -> dict[str, Any]:
    """The plain values of an edit in the notation ``NAME:OPTION=VALUE``; raises ClasslensError for another notation.

    Indices are numbers and ranges between commas, such as ``0-12,15``; both ends of a range belong to it.

    Examples:
        >>> edit_of_text("AblateHeads:heads=0-2:blocks=5")
        {'edit': 'AblateHeads', 'heads': [0, 1, 2], 'blocks': [5]}
    """
    name, *parts = text.split(":")
    values: dict[str, Any] = {"edit": name}
    known = edit_options(name[:60])
    for part in parts:
        option, equals, value = part.partition("=")
        if not (option and equals and value):
            raise ClasslensError(f"edit {text[:80]!r} is not NAME:OPTION=VALUE: write it as {_EXAMPLE}")
        if option in values:
            raise ClasslensError(f"edit {text[:80]!r} has the option {option!r} twice: leave one out")
        values[option] = _plain(value, known[option]) if option in known else value
    return values


def _plain(text: str, option: EditOption) -> Any:
    if option.kind == "flag":
        return {"true": True, "false": False}.get(text.lower(), text)
    if option.kind == "number":
        try:
            return float(text) if not re.fullmatch(r"-?\d{1,15}", text) else int(text)
        except ValueError:
            return text
    if option.kind in ("indices", "tokens", "mask") and _INDICES.fullmatch(text):
        return list(_numbers(text))
    return text


def _numbers(text: str) -> Iterator[int]:
    for part in text.split(","):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if low > high or high >= MOST_INDICES:
            raise ClasslensError(f"range {part!r} cannot be used: give whole numbers in ascending order, such as 0-12")
        yield from range(low, high + 1)


def text_of_edit(name: str, options: Mapping[str, Value]) -> str:
    """An edit in the notation that ``edit_of_text`` reads."""
    return ":".join([name, *(f"{option}={_text(value)}" for option, value in options.items())])


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ranges(value) if isinstance(value, tuple) else str(value)


def ranges(numbers: tuple[int, ...]) -> str:
    """Ascending numbers with ranges.

    Examples:
        >>> ranges((0, 1, 2, 5, 7, 8))
        '0-2,5,7-8'
    """
    parts = []
    for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        parts.append(str(members[0]) if len(members) == 1 else f"{members[0]}-{members[-1]}")
    return ",".join(parts)
