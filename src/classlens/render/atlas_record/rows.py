"""Rows of tables as JSON takes them: plain numbers of six digits, None in the place of numbers that are missing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

_DIGITS = 6
Row = dict[str, Any]


def plain(value: Any) -> Any:
    """A value of a table as JSON takes it."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return value


def table_rows(table: pd.DataFrame, names: Sequence[str] | Mapping[str, str]) -> list[Row]:
    """Rows with some columns, which may have other names in the record."""
    renamed = names if isinstance(names, Mapping) else {name: name for name in names}
    columns = [[plain(value) for value in table[name].tolist()] for name in renamed]
    return [dict(zip(renamed.values(), values, strict=True)) for values in zip(*columns, strict=True)]


def grouped(table: pd.DataFrame, columns: Sequence[str]) -> dict[tuple[int, ...], pd.DataFrame]:
    """The rows of each combination of values, in their order."""
    parts = table.groupby(list(columns), sort=False)
    return {tuple(int(part) for part in key): rows for key, rows in parts}
