"""Tables in Markdown, and numbers as they stand in their cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table; every cell stays on one line."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cell_text(cell) for cell in line)} |\n" for line in lines)


def cell_text(value: Any) -> str:
    """A value on one line, without a bar that would begin another cell."""
    return " ".join(str(value).split()).replace("|", "\\|")


def interval_text(row: Any, value: str = "value", low: str = "low", high: str = "high") -> str:
    """A value of a row with its interval, such as ``0.382 (0.378 to 0.386)``; empty without a row or a value."""
    if row is None or pd.isna(row[value]):
        return ""
    if pd.isna(row[low]):
        return f"{row[value]:.3f}"
    return f"{row[value]:.3f} ({row[low]:.3f} to {row[high]:.3f})".replace("-", "−")


def p_text(p: float) -> str:
    """A p value with two digits, never 0: one too small for a float is given as a bound."""
    if pd.isna(p):
        return ""
    return "< 1e-300" if p < 1e-300 else f"{p:.2g}"
