"""Tables in Markdown, and numbers as they stand in their cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from classlens.text import markdown_text


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table; every cell stays on one line."""
    lines = [[cell if isinstance(cell, Bold) else markdown_text(cell) for cell in line] for line in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


class Bold(str):
    """A cell in bold."""

    def __new__(cls, text: str) -> Bold:
        return super().__new__(cls, f"**{markdown_text(text)}**")


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
