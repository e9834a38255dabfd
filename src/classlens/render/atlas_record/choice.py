"""The pages of an atlas, and their addresses."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from classlens.errors import ClasslensError

Head = tuple[int, int]
Unit = tuple[int, int]
"""Block and number within the block."""


@dataclass(frozen=True)
class PageChoice:
    """The classes, blocks, heads and units that have a page, in the order of their numbers.

    ``value_units[category]``: units of a class page by their value vectors, in its order.
    """

    classes: tuple[int, ...]
    blocks: tuple[int, ...]
    heads: tuple[Head, ...]
    units: tuple[Unit, ...]
    value_units: Mapping[int, tuple[Unit, ...]]
    units_per_class: int

    def class_page(self, category: int) -> str | None:
        return f"classes/{category}.html" if category in self._sets[0] else None

    def block_page(self, block: int) -> str | None:
        return f"blocks/{block}.html" if block in self.blocks else None

    def head_page(self, block: int, head: int) -> str | None:
        return f"heads/{block}.{head}.html" if (block, head) in self._sets[1] else None

    def unit_page(self, block: int, unit: int) -> str | None:
        return f"units/{block}.{unit}.html" if (block, unit) in self._sets[2] else None

    @cached_property
    def _sets(self) -> tuple[frozenset[int], frozenset[Head], frozenset[Unit]]:
        return frozenset(self.classes), frozenset(self.heads), frozenset(self.units)


def classes_with_images(tables: Mapping[str, pd.DataFrame]) -> list[int]:
    """Classes that some image counts for: by its label, or by its prediction in a store without labels."""
    table = tables["classes"]
    counts = table["images"] if int(table["images"].sum()) else table["predicted"]
    return sorted(int(category) for category in table["category"][counts > 0])


def choose_pages(
    tables: Mapping[str, pd.DataFrame],
    *,
    classes: Sequence[int] | None = None,
    heads: Sequence[Head] | None = None,
    units: Sequence[Unit] = (),
    units_per_class: int = 10,
) -> PageChoice:
    """Pages of all classes with images and of all heads, or of chosen ones, and of the units that class pages name.

    ``units`` have a page whether a class page names them or not. Raises ClasslensError for a class without images, and
    for a head or unit that the tables lack.
    """
    with_images = classes_with_images(tables)
    chosen_classes = with_images if classes is None else sorted(set(classes))
    missing = next((category for category in chosen_classes if category not in set(with_images)), None)
    if missing is not None:
        names = dict(zip(tables["classes"]["category"], tables["classes"]["class_name"], strict=True))
        raise ClasslensError(
            f"class {names.get(missing, missing)!r} has no image in the store: give classes that have some, or leave "
            "--classes out for all of them"
        )
    all_heads = [(int(block), int(head)) for block, head in _pairs(tables["heads"], "head")]
    chosen_heads = all_heads if heads is None else sorted(set(heads))
    _check("head", chosen_heads, all_heads)
    all_units = set(_pairs(tables["units"], "unit"))
    _check("unit", units, all_units)
    value_units = {category: _value_units(tables, category, units_per_class) for category in chosen_classes}
    writers = tables["unit_writers"]
    writers = writers[writers["category"].isin(chosen_classes)].groupby("category", sort=False).head(units_per_class)
    named = {*units, *_pairs(writers, "unit"), *(unit for listed in value_units.values() for unit in listed)}
    blocks = {int(block) for name in ("heads", "writers", "units") for block in tables[name]["block"].unique()}
    return PageChoice(
        tuple(chosen_classes),
        tuple(sorted(blocks)),
        tuple(chosen_heads),
        tuple(sorted(named & all_units)),
        value_units,
        units_per_class,
    )


def _pairs(table: pd.DataFrame, column: str) -> list[tuple[int, int]]:
    return list(zip(table["block"].tolist(), table[column].tolist(), strict=True))


def _check(kind: str, chosen: Sequence[tuple[int, int]], known: Collection[tuple[int, int]]) -> None:
    missing = next((pair for pair in chosen if pair not in set(known)), None)
    if missing is None:
        return
    name = f"{kind} {missing[0]}.{missing[1]}"
    if not known:
        raise ClasslensError(
            f"{name} was chosen, but the store has no {kind}s: measure it with --attribution --units 64"
        )
    last = max(known)
    raise ClasslensError(
        f"{name} is not one of this atlas: give block and {kind}, from {min(known)[0]}.{min(known)[1]} up to "
        f"{last[0]}.{last[1]}"
    )


def _value_units(tables: Mapping[str, pd.DataFrame], category: int, count: int) -> tuple[Unit, ...]:
    """The units whose value vectors score a class highest, those that score no other class higher first."""
    table = tables["unit_values"]
    table = table[table["category"] == category]
    table = table.assign(other=table["class_rank"] > 0).sort_values(["other", "score"], ascending=[True, False])
    return tuple(_pairs(table.head(count), "unit"))
