"""All pages of an atlas, one record after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from classlens.analysis.atlas.atlas import Atlas
from classlens.render.atlas_record.block_page import block_record
from classlens.render.atlas_record.choice import PageChoice
from classlens.render.atlas_record.class_page import ClassRecords
from classlens.render.atlas_record.commands import commands
from classlens.render.atlas_record.head_page import HeadRecords
from classlens.render.atlas_record.overview import overview
from classlens.render.atlas_record.rows import Row
from classlens.render.atlas_record.unit_page import UnitRecords

Kind = Literal["overview", "class", "block", "head", "unit"]
_Listed = tuple[str, str, tuple[str, str], Any]
"""Name and address of a page, those of the page above it, and what it is about."""


@dataclass(frozen=True)
class PageRecord:
    """A page: its kind, its address in the folder, its title, and what it shows.

    ``neighbors``: text and address of the pages before and after it; None at the ends.
    """

    kind: Kind
    path: str
    title: str
    crumbs: tuple[tuple[str, str | None], ...]
    neighbors: tuple[tuple[str, str] | None, tuple[str, str] | None]
    record: Row


def shared_record(atlas: Atlas) -> dict[str, Any]:
    """Facts that all pages show."""
    attrs = atlas.attrs
    return {
        "model": str(attrs["model"]),
        "data": str(attrs["data"]),
        "split": attrs.get("split"),
        "labels": int(atlas.tables["classes"]["images"].sum()) > 0,
        "confidence": float(attrs.get("confidence", 0.95)),
        "pending": int(attrs.get("pending_images", 0)),
        "skipped": int(attrs.get("skipped_images", 0)),
        "commands": commands(atlas),
        "units": len(atlas.tables["units"]) > 0,
    }


class PageRecords(Mapping[str, PageRecord]):
    """The pages of an atlas by address, in order; the first is ``index.html``. A record is made when it is asked for.

    ``PageRecords(atlas, choose_pages(atlas.tables))["heads/4.3.html"].record["tokens"]``
    """

    def __init__(self, atlas: Atlas, pages: PageChoice) -> None:
        names = atlas.class_names
        heads = HeadRecords(atlas.tables, pages, names)
        classes = ClassRecords(atlas.tables, pages)
        units = UnitRecords(atlas.tables, pages, names)
        self._pages: dict[str, Callable[[], PageRecord]] = {
            "index.html": lambda: PageRecord(
                "overview", "index.html", "", (), (None, None), overview(atlas, pages, heads)
            )
        }
        blocks = {block: (f"Block {block}", f"blocks/{block}.html") for block in pages.blocks}
        above = ("Classes", "index.html#classes")
        self._add("class", [(names[key], f"classes/{key}.html", above, key) for key in pages.classes], classes.record)
        above = ("Blocks", "index.html#heads")
        self._add(
            "block",
            [(*blocks[key], above, key) for key in pages.blocks],
            lambda block: block_record(block, pages, heads),
        )
        self._add("head", [_numbered("head", key, blocks) for key in pages.heads], lambda key: heads.record(*key))
        self._add("unit", [_numbered("unit", key, blocks) for key in pages.units], lambda key: units.record(*key))

    def _add(self, kind: Kind, listed: Sequence[_Listed], record: Callable[[Any], Row]) -> None:
        """Add all pages of a kind."""

        def page(number: int) -> PageRecord:
            name, path, above, key = listed[number]
            return PageRecord(kind, path, name, (above, (name, None)), _neighbors(listed, number), record(key))

        self._pages |= {path: partial(page, number) for number, (_, path, _, _) in enumerate(listed)}

    def __getitem__(self, path: str) -> PageRecord:
        return self._pages[path]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._pages)

    def __len__(self) -> int:
        return len(self._pages)


def _numbered(kind: Kind, key: tuple[int, int], blocks: Mapping[int, tuple[str, str]]) -> _Listed:
    """A head or unit by its block and number."""
    block, number = key
    return f"{kind.capitalize()} {block}.{number}", f"{kind}s/{block}.{number}.html", blocks[block], key


def _neighbors(pages: Sequence[_Listed], number: int) -> Any:
    before = pages[number - 1][:2] if number else None
    after = pages[number + 1][:2] if number + 1 < len(pages) else None
    return before, after
