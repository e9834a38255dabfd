"""The options of every edit, as plain values name them: read from the annotations of its class."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import Tensor

from classlens.core.arguments import is_whole_number, shown
from classlens.core.arrays import Array
from classlens.errors import ClasslensError, unknown
from classlens.forward.edits.columns import Replacement
from classlens.forward.edits.keep_tokens import Mask
from classlens.forward.edits.registry import EDITS
from classlens.forward.edits.selection import Indices, TokenGroup

MOST_INDICES = 100_000
"""Largest number of tokens, heads or units that one option takes; larger indices are refused before the model runs."""
REPLACEMENTS = ("zero", "means")

Kind = Literal["indices", "tokens", "mask", "replacement", "source", "flag", "choice", "number"]
Value = str | bool | int | float | tuple[int, ...]
"""A plain value of an option: a word, a switch, a number, or indices in ascending order."""


@dataclass(frozen=True)
class EditOption:
    """An option of an edit, as plain values give it; ``choices`` are its words, if it takes words alone."""

    name: str
    kind: Kind
    required: bool
    default: Any = None
    choices: tuple[str, ...] = ()

    def value(self, given: object, edit: str) -> Value:
        """A plain value in one form; raises ClasslensError for one that the option does not take."""
        if self.kind == "choice" or self.kind == "replacement":
            if not isinstance(given, str) or given not in self.choices:
                raise unknown(
                    f"{self.name} of edit {edit}", given if isinstance(given, str) else shown(given), self.choices
                )
            return given
        if self.kind == "flag":
            if isinstance(given, bool):
                return given
            raise self._refused(given, edit, "true or false")
        if self.kind == "number":
            if isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given):
                return given
            raise self._refused(given, edit, "a finite number")
        names = {"indices": "all", "tokens": r"[A-Za-z]\w{0,31}"}.get(self.kind)
        if names is not None and isinstance(given, str) and re.fullmatch(names, given):
            return given
        return self._indices(given, edit)

    def _indices(self, given: object, edit: str) -> tuple[int, ...]:
        words = {"tokens": ", 'all' or the name of a group of tokens", "mask": ", the tokens to keep"}.get(
            self.kind, " or 'all'"
        )
        numbers: Sequence[Any] = given if isinstance(given, list | tuple) else [given]
        wrong = [number for number in numbers if not (is_whole_number(number) and 0 <= number < MOST_INDICES)]
        if wrong or not numbers:
            raise self._refused(wrong[0] if wrong else given, edit, f"whole numbers from 0{words}")
        if len(set(numbers)) < len(numbers):
            twice = next(number for place, number in enumerate(numbers) if number in numbers[:place])
            raise ClasslensError(f"{self.name} of edit {edit} has {twice} twice: leave one out")
        return tuple(sorted(numbers))

    def _refused(self, given: object, edit: str, expected: str) -> ClasslensError:
        return ClasslensError(f"{self.name} {shown(given)} of edit {edit} cannot be used: give {expected}")


@cache
def edit_options(edit: str) -> Mapping[str, EditOption]:
    """The options of an edit by name, in the order of its class; raises ClasslensError for an unknown edit."""
    kind = EDITS[edit]
    hints = get_type_hints(kind, include_extras=True)
    return {option.name: option for option in _options(kind, hints, edit)}


def _options(kind: Any, hints: Mapping[str, Any], edit: str) -> Iterator[EditOption]:
    for field in fields(kind):
        if field.init:
            name, words = _kind(hints[field.name], f"{field.name} of edit {edit}")
            yield EditOption(field.name, name, _required(field), _default(field), words)


def _kind(hint: Any, name: str) -> tuple[Kind, tuple[str, ...]]:
    parts = (
        [part for part in get_args(hint) if part is not type(None)]
        if get_origin(hint) in (Union, UnionType)
        else [hint]
    )
    if parts == [Tensor, Array]:
        return "source", ()
    inner = parts[0] if len(parts) == 1 else None
    plain: dict[Any, Kind] = {Indices: "indices", TokenGroup: "tokens", Mask: "mask"}
    for known, kind in plain.items():
        if inner == known:
            return kind, ()
    if inner == Replacement:
        return "replacement", REPLACEMENTS
    if inner is bool:
        return "flag", ()
    if inner in (int, float):
        return "number", ()
    if get_origin(inner) is Literal:
        return "choice", tuple(map(str, get_args(inner)))
    raise ClasslensError(f"{name} has no plain values: give this edit in Python, with `Lens.edit`")


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _default(field: Field[Any]) -> Any:
    return None if field.default is MISSING else field.default
