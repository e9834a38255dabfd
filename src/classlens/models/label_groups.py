"""Groups of the classes of a model, such as entry-level categories, from a file or a dict."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from classlens.core.arguments import AnyPath, Takes, taken
from classlens.core.home import expanded
from classlens.errors import ClasslensError, cause
from classlens.models.class_spelling import index_of_spelling, indices_by_wnid
from classlens.models.classes import Classes, read_text

Groups = (
    AnyPath
    | Annotated[
        Mapping[int | str, str] | Mapping[int, str] | Mapping[str, str],
        Takes("a dict from classes to the names of their groups"),
    ]
)
"""A file of lines ``class,group``, or a dict from classes to groups."""

_WNID = re.compile(r"n\d{8}")


class _Row(NamedTuple):
    where: str
    category: int | str
    group: str


@dataclass(frozen=True)
class LabelGroups:
    """Groups of classes, in the order of their first classes, so that it does not matter how they are listed.

    Args:
        names: name of each group.
        of_class: group of each class of the model; -1 for a class of none.
    """

    names: tuple[str, ...]
    of_class: tuple[int, ...]

    @classmethod
    def of(cls, given: Groups, classes: Classes) -> LabelGroups:
        """The groups that a file or dict gives; raises ClasslensError where it does not fit the classes.

        Classes are given by name, synonym, wnid or index.

        Examples:
            >>> classes = Classes(("beagle", "tench", "lynx", "tabby"))
            >>> LabelGroups.of({"tabby": "cat", "beagle": "dog", 2: "cat"}, classes)
            LabelGroups(names=('dog', 'cat'), of_class=(0, -1, 1, 1))
        """
        if isinstance(given, Mapping):
            what = "the dict of label groups"
            rows = [_Row(what, taken("groups", key, int | str), group) for key, group in given.items()]
        else:
            what = f"label groups file {str(given)!r}"
            rows = list(_read(read_text(expanded(given), "label groups file"), what))
        return cls._of_rows(what, rows, classes)

    @classmethod
    def _of_rows(cls, what: str, rows: Sequence[_Row], classes: Classes) -> LabelGroups:
        _check_numbers(what, rows, classes)
        by_wnid = indices_by_wnid(classes) if any(_is_wnid(row.category) for row in rows) else {}
        found: dict[int, _Row] = {}
        for row in rows:
            if not (group := row.group.strip()):
                raise ClasslensError(
                    f"{row.where}: class {row.category!r} has no group: name it, or leave the class out"
                )
            index = _index(row, by_wnid, classes)
            if (first := found.get(index)) is not None:
                again = "" if first.where == row.where else f", after {first.where.rpartition(', ')[2]}"
                name = f"{index} ({classes.names[index]!r})"
                raise ClasslensError(f"{row.where} has class {name} a second time{again}: give each class once")
            found[index] = row._replace(group=group)
        names = tuple(dict.fromkeys(found[index].group for index in sorted(found)))
        if len(names) < 2:
            held = f"the single group {names[0]!r}" if names else "no class"
            raise ClasslensError(f"{what} has {held}: expected two groups or more; give the group of each class of one")
        number = {name: position for position, name in enumerate(names)}
        of_class = (number[found[index].group] if index in found else -1 for index in range(len(classes)))
        return cls(names, tuple(of_class))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def table(self) -> Int[Tensor, " category"]:
        """The group of each class; -1 for a class of none."""
        return torch.tensor(self.of_class)


def _read(text: str, what: str) -> Iterator[_Row]:
    """Lines of a class and its group between a comma or tab; a first line ``class,group`` is a heading."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if "\t" in first else ",", strict=True)
    heading = True
    try:
        for cells in reader:
            cells, where = [cell.strip() for cell in cells], f"{what}, line {reader.line_num}"
            if not any(cells):
                continue
            if len(cells) != 2:
                raise ClasslensError(
                    f"{where} has {len(cells)} column{'s' * (len(cells) > 1)}: expected a class and its group with a "
                    "comma or tab between them; put quotes around a name with commas"
                )
            if not (heading and [cell.lower() for cell in cells] == ["class", "group"]):
                yield _Row(where, *cells)
            heading = False
    except csv.Error as error:
        raise ClasslensError(
            f"{what}, line {reader.line_num} is not understood ({cause(error)}): expected a class and its group with a "
            "comma or tab between them"
        ) from None


def _is_wnid(category: int | str) -> bool:
    return isinstance(category, str) and _WNID.fullmatch(category.strip()) is not None


def _index(row: _Row, by_wnid: Mapping[str, int], classes: Classes) -> int:
    name = row.category.strip() if isinstance(row.category, str) else row.category
    if isinstance(name, str):
        wnid = name if _is_wnid(name) else None
        index = by_wnid.get(name) if wnid else None
        index = index_of_spelling(name, wnid, classes) if index is None else index
        if index is not None:
            return index
    try:
        return classes.index(name)
    except ClasslensError as error:
        raise ClasslensError(f"{row.where}: {error}") from None


def _check_numbers(what: str, rows: Sequence[_Row], classes: Classes) -> None:
    """Raises ClasslensError for numbers of which some are names of classes: neither reading holds for all."""
    texts = [row.category for row in rows if isinstance(row.category, str) and row.category.strip().isdecimal()]
    named = [text for text in texts if classes.of_name(text)]
    if named and len(named) < len(texts):
        other = next(text for text in texts if text not in named)
        raise ClasslensError(
            f"{what} has numbers, of which {named[0]!r} is the name of a class and {other!r} is not: expected names "
            "alone, or indices alone; give names"
        )
