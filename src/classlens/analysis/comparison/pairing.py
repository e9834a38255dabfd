"""Images and classes that two stores have in common."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from classlens.analysis.comparison.facts import Facts, read_facts
from classlens.analysis.measured_store import MeasuredStore
from classlens.core.arrays import Array
from classlens.errors import ClasslensError

By = Literal["content", "name"]


@dataclass(frozen=True, eq=False)
class Pairing:
    """The images of two stores, row by row, with their classes in one list.

    Labels, predictions, targets and top classes of both are indices of ``class_names``: the classes of the first, then
    those that the second alone has.
    """

    first: Facts
    second: Facts
    class_names: Array
    label: Int[ndarray, " image"]
    """The label that both give; -1 without one, or where they differ."""
    common_classes: int
    only: tuple[int, int]
    """Images of one store alone."""
    by: By

    @property
    def labeled(self) -> Bool[ndarray, " image"]:
        return np.asarray(self.label >= 0)

    @property
    def right(self) -> tuple[Bool[ndarray, " image"], Bool[ndarray, " image"]]:
        """Whether each predicts the label."""
        return self.first.prediction == self.label, self.second.prediction == self.label

    @property
    def other_labels(self) -> int:
        """Images to which both stores give a label, and not the same."""
        return int(((self.first.label >= 0) & (self.second.label >= 0) & ~self.labeled).sum())


def pair(first: MeasuredStore, second: MeasuredStore, by: By | None) -> Pairing:
    """Match images and classes; raises ClasslensError where there are none in common."""
    names = [_numbered(store.class_names()) for store in (first, second)]
    index_of = {name: index for index, name in enumerate(names[0])}
    common = sum(name in index_of for name in names[1])
    if not common:
        raise ClasslensError(
            f"stores {first.url!r} and {second.url!r} have no class name in common, such as {names[0][0][0]!r} and "
            f"{names[1][0][0]!r}: give stores whose models share classes by name"
        )
    of_second = np.array([index_of.setdefault(name, len(index_of)) for name in names[1]] + [-1])
    sides = [read_facts(store) for store in (first, second)]
    has_content = all(facts.content is not None for facts in sides)
    if by == "content" and not has_content:
        raise ClasslensError(
            f"stores {first.url!r} and {second.url!r} do not both hold the content of every image: match by name"
        )
    by = by or ("content" if has_content else "name")
    rows = _matched(_keys(sides[0], by), _keys(sides[1], by))
    if not len(rows):
        raise _nothing_shared(first, second, sides, by)
    only = (len(sides[0].index) - len(rows), len(sides[1].index) - len(rows))
    left = sides[0].part(rows[:, 0])
    right = sides[1].part(rows[:, 1])
    right = replace(
        right, **{name: of_second[getattr(right, name)] for name in ("label", "prediction", "target", "top")}
    )
    label = np.where(left.label == right.label, left.label, -1)
    class_names = np.array([name for name, _ in index_of], dtype=object)
    return Pairing(left, right, class_names, label, common, only, by)


def _nothing_shared(first: MeasuredStore, second: MeasuredStore, sides: Sequence[Facts], by: By) -> ClasslensError:
    same_names = len(set(sides[0].name) & set(sides[1].name)) if by == "content" else 0
    hint = f"; {same_names:,} have the same name, by which --by name (by='name') matches" if same_names else ""
    return ClasslensError(
        f"stores {first.url!r} and {second.url!r} have no image in common by {by}: give stores of the same images{hint}"
    )


def _numbered(names: Iterable[Hashable]) -> list[tuple[Any, int]]:
    """Each name with the number of times that it came before."""
    seen: dict[Hashable, int] = {}
    numbered = []
    for name in names:
        seen[name] = seen.get(name, -1) + 1
        numbered.append((name, seen[name]))
    return numbered


def _keys(facts: Facts, by: By) -> list[tuple[Any, int]]:
    """A key for each image that no other image of the store has; the same photo twice counts in order of names."""
    values = (facts.name if by == "name" else facts.content).tolist()  # type: ignore[union-attr]
    order = sorted(range(len(values)), key=lambda i: (str(facts.name[i]), i))
    keys: list[Any] = [None] * len(values)
    for i, key in zip(order, _numbered(values[i] for i in order), strict=True):
        keys[i] = key
    return keys


def _matched(first: list[tuple[Any, int]], second: list[tuple[Any, int]]) -> Int[ndarray, "pair 2"]:
    """Rows of both with the same key, in the order of the first."""
    row_of = {key: row for row, key in enumerate(second)}
    pairs = [(row, row_of[key]) for row, key in enumerate(first) if key in row_of]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)
