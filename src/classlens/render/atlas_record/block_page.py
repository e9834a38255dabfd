"""The page of a block: its heads, its MLP, and what they add to each class."""

from __future__ import annotations

from classlens.render.atlas_record.choice import PageChoice
from classlens.render.atlas_record.head_page import HeadRecords
from classlens.render.atlas_record.rows import Row


def block_record(block: int, pages: PageChoice, heads: HeadRecords) -> Row:
    rows = heads.heads(block)
    parts = [{"head": row["head"], "page": row["page"], "classes": heads.classes(block, row["head"])} for row in rows]
    return {
        "block": block,
        "heads": rows,
        "parts": [part for part in parts if part["classes"]],
        "mlp": heads.classes(block, -1),
        "units": [{"unit": unit, "page": pages.unit_page(block, unit)} for of, unit in pages.units if of == block],
    }
