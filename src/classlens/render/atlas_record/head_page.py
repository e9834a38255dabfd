"""The page of a head: the classes that it writes, where it attends, its map and the patches that it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from classlens.render.atlas_record.choice import PageChoice
from classlens.render.atlas_record.rows import Row, grouped, plain, table_rows
from classlens.render.atlas_record.tokens import TOKEN_COLUMNS, with_class_names

ATTENTION = tuple(f"{name}{end}" for name in ("distance", "entropy") for end in ("", "_low", "_high"))


class HeadRecords:
    """Records of head pages, and of the heads of block pages, from the tables of an atlas."""

    def __init__(self, tables: Mapping[str, pd.DataFrame], pages: PageChoice, class_names: Sequence[str]) -> None:
        self._tables, self._pages, self._names = tables, pages, class_names
        writers = tables["writers"]
        self._writers = grouped(writers[writers["category"].isin(pages.classes)], ["block", "head"])
        self._heads = grouped(tables["heads"], ["block"])
        self._maps = grouped(tables["head_map"], ["block", "head"])
        self._tokens = grouped(tables["head_tokens"], ["block", "head"])

    def record(self, block: int, head: int) -> Row:
        heads = self.heads(block)
        (facts,) = (row for row in heads if row["head"] == head)
        return {
            **facts,
            "block_page": self._pages.block_page(block),
            "classes": self.classes(block, head),
            "heads": heads,
            "map": self._map(block, head),
            "tokens": [
                with_class_names(row, self._names)
                for row in table_rows(
                    self._tokens.get((block, head), self._tables["head_tokens"].head(0)),
                    [*TOKEN_COLUMNS, "contribution", "label", "prediction"],
                )
            ],
        }

    def classes(self, block: int, head: int) -> list[Row]:
        """The mean contribution of a head, or of an MLP (-1), to each class, over all, right and wrong images."""
        table = self._writers.get((block, head), self._tables["writers"].head(0))
        rows: dict[int, Row] = {}
        for row in table_rows(table, ("category", "group", "images", "contribution", "low", "high")):
            category = row["category"]
            part = rows.setdefault(
                category,
                {
                    "category": category,
                    "class_name": self._names[category],
                    "page": self._pages.class_page(category),
                },
            )
            part[row["group"]] = {
                "images": row["images"],
                "value": row["contribution"],
                "low": row["low"],
                "high": row["high"],
            }
        return [row for row in rows.values() if "all" in row]

    def heads(self, block: int) -> list[Row]:
        """Attention and strength of all heads of a block."""
        rows = table_rows(
            self._heads.get((block,), self._tables["heads"].head(0)),
            ("block", "head", "contribution_images", *ATTENTION, "copy_share"),
        )
        for row in rows:
            row["page"] = self._pages.head_page(block, row["head"])
            row["strength"] = self.strength(block, row["head"])
        return rows

    def strength(self, block: int, head: int) -> float | None:
        """Mean over the classes of the absolute mean contribution."""
        table = self._writers.get((block, head))
        values = [] if table is None else table.loc[table["group"] == "all", "contribution"].abs().dropna().tolist()
        return plain(sum(values) / len(values)) if values else None

    def _map(self, block: int, head: int) -> list[Row]:
        columns = ("input_class", "input_name", "output_class", "output_name", "score")
        rows = table_rows(self._maps.get((block, head), self._tables["head_map"].head(0)), columns)
        for row in rows:
            row["input_page"] = self._pages.class_page(row["input_class"])
            row["output_page"] = self._pages.class_page(row["output_class"])
        return rows
