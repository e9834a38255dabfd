"""The first page of an atlas: accuracy by class, the strength of heads and MLPs, and what its search finds."""

from __future__ import annotations

from typing import Any

from classlens.analysis.atlas.atlas import Atlas
from classlens.render.atlas_record.choice import PageChoice, classes_with_images
from classlens.render.atlas_record.head_page import HeadRecords
from classlens.render.atlas_record.rows import Row, plain, table_rows


def overview(atlas: Atlas, pages: PageChoice, heads: HeadRecords) -> Row:
    tables = atlas.tables
    classes = tables["classes"]
    classes = classes[classes["category"].isin(classes_with_images(tables))]
    columns = ("category", "class_name", "images", "correct", "accuracy", "accuracy_low", "accuracy_high", "predicted")
    rows = [{**row, "page": pages.class_page(row["category"])} for row in table_rows(classes, columns)]
    return {"classes": rows, "parts": _parts(atlas, pages, heads), "entries": _entries(atlas, pages)}


def _parts(atlas: Atlas, pages: PageChoice, heads: HeadRecords) -> list[Row]:
    """The strength of every head and MLP (-1)."""
    writers = atlas.tables["writers"]
    keys = sorted({(int(b), int(h)) for b, h in zip(writers["block"], writers["head"], strict=True)})
    return [
        {
            "block": block,
            "head": head,
            "value": heads.strength(block, head),
            "page": pages.block_page(block) if head < 0 else pages.head_page(block, head),
        }
        for block, head in keys
    ]


def _entries(atlas: Atlas, pages: PageChoice) -> list[list[Any]]:
    """Kind, number, name or note of every page; the address follows from kind and number."""
    units = atlas.tables["units"].set_index(["block", "unit"])
    entries: list[list[Any]] = [["class", str(index), atlas.class_names[index]] for index in pages.classes]
    entries += [["block", str(block), ""] for block in pages.blocks]
    entries += [["head", f"{block}.{head}", ""] for block, head in pages.heads]
    names = units["value_name"].reindex(list(pages.units)) if pages.units else []
    entries += [
        ["unit", f"{block}.{unit}", plain(name) or ""] for (block, unit), name in zip(pages.units, names, strict=True)
    ]
    return entries
