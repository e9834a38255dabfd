"""The page of a class: its images, decisions and confusions, and the heads, MLPs and units that write it."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from classlens.render.atlas_record.choice import PageChoice
from classlens.render.atlas_record.rows import Row, grouped, plain, table_rows
from classlens.render.atlas_record.tokens import TOKEN_COLUMNS

_LINES = tuple(f"{name}{end}" for name in ("on_top", "log_probability") for end in ("", "_low", "_high"))


class ClassRecords:
    """Records of class pages from the tables of an atlas."""

    def __init__(self, tables: Mapping[str, pd.DataFrame], pages: PageChoice) -> None:
        self._tables, self._pages = tables, pages
        self._parts = {
            name: grouped(tables[name], [column])
            for name, column in (
                ("classes", "category"),
                ("confusions", "label"),
                ("trajectory", "category"),
                ("writers", "category"),
                ("tips", "label"),
                ("unit_writers", "category"),
                ("class_tokens", "category"),
            )
        }
        self._taken = grouped(tables["confusions"], ["prediction"])
        chosen = pd.MultiIndex.from_tuples(pages.units, names=["block", "unit"]) if pages.units else []
        units = tables["units"].set_index(["block", "unit"])
        values = tables["unit_values"].set_index(["block", "unit"])
        self._units = units[units.index.isin(chosen)]
        self._values = values[values.index.isin(chosen)]

    def record(self, category: int) -> Row:
        (facts,) = table_rows(
            self._part("classes", category),
            ("class_name", "images", "correct", "accuracy", "accuracy_low", "accuracy_high", "predicted"),
        )
        return {
            **facts,
            "category": category,
            "confusions": self._confusions(self._part("confusions", category), "prediction"),
            "taken": self._confusions(self._taken.get((category,), self._tables["confusions"].head(0)), "label"),
            "trajectory": table_rows(
                self._part("trajectory", category),
                ("depth", "group", "images", *_LINES),
            ),
            "writers": self._writers(category),
            "value_units": self._value_units(category),
            "unit_writers": self._unit_writers(category),
            "tokens": table_rows(self._part("class_tokens", category), [*TOKEN_COLUMNS, "logit"]),
            "tip": self._tip(category),
        }

    def _part(self, name: str, category: int) -> pd.DataFrame:
        return self._parts[name].get((category,), self._tables[name].head(0))

    def _confusions(self, table: pd.DataFrame, other: str) -> list[Row]:
        names = {other: "category", f"{other}_name": "class_name", "images": "images", "share": "value"}
        rows = table_rows(table, {**names, "share_low": "low", "share_high": "high"})
        return [{**row, "page": self._pages.class_page(row["category"])} for row in rows]

    def _writers(self, category: int) -> list[Row]:
        """A row for each head and MLP, with the numbers of each group of images."""
        parts: dict[tuple[int, int], Row] = {}
        columns = ("block", "head", "group", "images", "contribution", "low", "high")
        for row in table_rows(self._part("writers", category), columns):
            block, head = row["block"], row["head"]
            part = parts.setdefault((block, head), {"block": block, "head": head, "page": self._part_page(block, head)})
            part[row["group"]] = {
                "images": row["images"],
                "value": row["contribution"],
                "low": row["low"],
                "high": row["high"],
            }
        return list(parts.values())

    def _part_page(self, block: int, head: int) -> str | None:
        return self._pages.block_page(block) if head < 0 else self._pages.head_page(block, head)

    def _tip(self, category: int) -> Row | None:
        table = self._part("tips", category)
        if not len(table):
            return None
        rival = int(table["prediction"].iloc[0])
        (name,) = self._tables["classes"].loc[self._tables["classes"]["category"] == rival, "class_name"]
        columns = {"block": "block", "head": "head", "difference": "value", "low": "low", "high": "high"}
        rows = [{**row, "page": self._part_page(row["block"], row["head"])} for row in table_rows(table, columns)]
        return {
            "class_name": name,
            "page": self._pages.class_page(rival),
            "images": int(table["images"].iloc[0]),
            "parts": rows,
        }

    def _value_units(self, category: int) -> list[Row]:
        listed = self._pages.value_units.get(category, ())
        values = self._values[self._values["category"] == category]
        rows = []
        for block, unit in listed:
            facts = table_rows(values.loc[[(block, unit)]], ("class_rank", "score", "cosine"))[0]
            share = plain(self._units["active_share"].loc[(block, unit)])
            rows.append(
                {
                    "block": block,
                    "unit": unit,
                    "page": self._pages.unit_page(block, unit),
                    **facts,
                    "active_share": share,
                }
            )
        return rows

    def _unit_writers(self, category: int) -> list[Row]:
        columns = {name: name for name in ("block", "unit", "images", "listed", "low", "high", "bound")}
        columns["contribution"] = "value"
        rows = table_rows(self._part("unit_writers", category).head(self._pages.units_per_class), columns)
        return [{**row, "page": self._pages.unit_page(row["block"], row["unit"])} for row in rows]
