"""The page of a hidden unit: the classes of its value vector, its strongest tokens and what it adds to classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from classlens.render.atlas_record.choice import PageChoice
from classlens.render.atlas_record.rows import Row, grouped, table_rows
from classlens.render.atlas_record.tokens import TOKEN_COLUMNS, with_class_names


class UnitRecords:
    """Records of unit pages from the tables of an atlas."""

    def __init__(self, tables: Mapping[str, pd.DataFrame], pages: PageChoice, class_names: Sequence[str]) -> None:
        self._tables, self._pages, self._names = tables, pages, class_names
        self._parts = {
            name: grouped(_of_units(tables[name], pages), ["block", "unit"])
            for name in ("units", "unit_values", "unit_tokens", "unit_writers")
        }

    def record(self, block: int, unit: int) -> Row:
        (facts,) = table_rows(self._part("units", block, unit), ("block", "unit", "active_share", "coefficient"))
        names = {"category": "category", "class_name": "class_name", "score": "value", "cosine": "cosine"}
        written = {name: name for name in ("category", "images", "listed", "low", "high", "bound")}
        written["contribution"] = "value"
        writers = self._with_pages(table_rows(self._part("unit_writers", block, unit), written))
        return {
            **facts,
            "block_page": self._pages.block_page(block),
            "values": self._with_pages(table_rows(self._part("unit_values", block, unit), names)),
            "classes": [{**row, "class_name": self._names[row["category"]]} for row in writers],
            "tokens": [
                with_class_names(row, self._names)
                for row in table_rows(
                    self._part("unit_tokens", block, unit), [*TOKEN_COLUMNS, "coefficient", "label", "prediction"]
                )
            ],
        }

    def _part(self, name: str, block: int, unit: int) -> pd.DataFrame:
        return self._parts[name].get((block, unit), self._tables[name].head(0))

    def _with_pages(self, rows: list[Row]) -> list[Row]:
        return [{**row, "page": self._pages.class_page(row["category"])} for row in rows]


def _of_units(table: pd.DataFrame, pages: PageChoice) -> pd.DataFrame:
    """The rows of units that have a page."""
    if not pages.units:
        return table.head(0)
    units = pd.MultiIndex.from_tuples(pages.units)
    return table[pd.MultiIndex.from_frame(table[["block", "unit"]]).isin(units)]
