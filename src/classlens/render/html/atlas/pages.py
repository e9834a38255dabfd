"""Writes the records of an atlas as a folder of HTML files, each of them complete in itself."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from classlens.analysis.atlas.atlas import Atlas
from classlens.render.atlas_crops import Crops
from classlens.render.atlas_record.choice import PageChoice
from classlens.render.atlas_record.records import Kind, PageRecord, PageRecords, shared_record
from classlens.render.atlas_record.rows import Row
from classlens.render.atlas_record.tokens import token_place
from classlens.render.html.page import assembled, json_element, write_page
from classlens.text import visible

_PACKAGES: Mapping[Kind, str] = {
    "overview": "overview",
    "class": "class_page",
    "block": "block_page",
    "head": "head_page",
    "unit": "unit_page",
}


def write_atlas_pages(
    atlas: Atlas,
    pages: PageChoice,
    folder: Path,
    *,
    version: str,
    crops: Crops | None = None,
    notes: Sequence[str] = (),
    report: Callable[[int], None] = lambda done: None,
) -> int:
    """Write all pages into a folder, and return their number.

    ``write_atlas_pages(atlas, choose_pages(atlas.tables), Path("atlas"), version="0.1.0")``

    Pages link to one another by relative addresses, and load nothing: style, scripts, numbers and crops are in each.
    Their names are numbers alone, whatever classes and images are called. ``crops`` are those of the tokens of the
    pages; without, the pages have none. ``notes`` stand on the first page.
    """
    shared = atlas_facts(atlas, notes=notes, crops=crops is not None)
    written = 0
    for page in PageRecords(atlas, pages).values():
        write_page(folder / page.path, atlas_page(page, shared, crops, version))
        written += 1
        report(written)
    return written


def atlas_facts(atlas: Atlas, *, notes: Sequence[str] = (), crops: bool) -> Mapping[str, Any]:
    """Facts that all pages of an atlas show."""
    return visible({**shared_record(atlas), "notes": list(notes), "crops": crops})


def atlas_page(
    page: PageRecord,
    shared: Mapping[str, Any],
    crops: Crops | None,
    version: str,
    *,
    before: Sequence[str] = (),
    after: Sequence[str] = (),
    data: Sequence[str] = (),
    site: bool = False,
) -> str:
    """The text of a page. Packages ``before`` and ``after`` add style and scripts of a ``site``; they read ``data``."""
    title = f"{page.title} · " if page.title else ""
    name = __package__
    subject = f"page {page.path!r}"
    shell = {
        **shared,
        "root": "../" * page.path.count("/"),
        "kind": page.kind,
        "title": page.title,
        "crumbs": page.crumbs,
        "neighbors": page.neighbors,
    }
    elements = (
        json_element("shell", visible(shell), subject=subject),
        json_element("page", {**visible(page.record), "crops": _addresses(page.record, crops)}, subject=subject),
    )
    return assembled(
        *before,
        "classlens.render.html.lattice",
        name,
        f"{name}.{_PACKAGES[page.kind]}",
        *after,
        title=f"{title}atlas of {shared['model']}",
        version=version,
        data="\n".join([*elements, *data]),
        site=site,
    )


def _addresses(record: Row, crops: Crops | None) -> list[str | None]:
    """The crops of the tokens of a page, as addresses that hold them; None for a photo that is missing."""
    if crops is None:
        return []
    files = [crops.files.get(token_place(row)) for row in record.get("tokens", ())]
    return [
        None if file is None else "data:image/jpeg;base64," + base64.b64encode(file).decode("ascii") for file in files
    ]
