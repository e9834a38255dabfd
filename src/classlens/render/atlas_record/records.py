"""All pages of an atlas, one record after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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


def page_records(atlas: Atlas, pages: PageChoice) -> Iterator[PageRecord]:
    """Records of all pages; the first is that of ``index.html``."""
    names = atlas.class_names
    heads = HeadRecords(atlas.tables, pages, names)
    yield PageRecord("overview", "index.html", "", (), (None, None), overview(atlas, pages, heads))
    classes = ClassRecords(atlas.tables, pages)
    listed = [(names[index], f"classes/{index}.html", index) for index in pages.classes]
    for place, (name, path, index) in enumerate(listed):
        crumbs = (("Classes", "index.html#classes"), (name, None))
        yield PageRecord("class", path, name, crumbs, _neighbors(listed, place), classes.record(index))
    blocks = [(f"Block {block}", f"blocks/{block}.html", block) for block in pages.blocks]
    for place, (name, path, block) in enumerate(blocks):
        crumbs = (("Blocks", "index.html#heads"), (name, None))
        yield PageRecord("block", path, name, crumbs, _neighbors(blocks, place), block_record(block, pages, heads))
    of_block = {block: (name, path) for name, path, block in blocks}
    all_heads = [(f"Head {block}.{head}", f"heads/{block}.{head}.html", (block, head)) for block, head in pages.heads]
    for place, (name, path, key) in enumerate(all_heads):
        crumbs = (of_block[key[0]], (name, None))
        yield PageRecord("head", path, name, crumbs, _neighbors(all_heads, place), heads.record(*key))
    units = UnitRecords(atlas.tables, pages, names)
    all_units = [(f"Unit {block}.{unit}", f"units/{block}.{unit}.html", (block, unit)) for block, unit in pages.units]
    for place, (name, path, key) in enumerate(all_units):
        crumbs = (of_block[key[0]], (name, None))
        yield PageRecord("unit", path, name, crumbs, _neighbors(all_units, place), units.record(*key))


def _neighbors(pages: Sequence[tuple[str, str, Any]], place: int) -> Any:
    before = pages[place - 1][:2] if place else None
    after = pages[place + 1][:2] if place + 1 < len(pages) else None
    return before, after
