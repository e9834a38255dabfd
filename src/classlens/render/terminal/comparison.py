"""A comparison as tables: both measurements side by side, and the classes that changed most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from classlens.analysis.comparison.compare import Comparison
from classlens.analysis.comparison.tables import BROKEN, CHANGED, FIXED
from classlens.render.comparison_record import LABELS, UNITS
from classlens.text import visible

_CLASSES = 5


def comparison_table(comparison: Comparison) -> Table:
    """Measures of both, with the difference and its interval.

    ``Console().print(comparison_table(classlens.compare("a.zarr", "b.zarr")))``

    Shares are in percent, their differences in percentage points.
    """
    attrs = comparison.attrs
    counts = ", ".join(f"{attrs[kind]:,} {kind}" for kind in (BROKEN, FIXED, CHANGED))
    names = [f"{side.capitalize()}: {escape(visible(attrs[side]['name']))}" for side in ("first", "second")]
    table = Table(title="\n".join([*names, f"{attrs['images']:,} images: {counts}"]), title_justify="left")
    table.add_column("measure")
    for name in ("first", "second", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in comparison.summary.to_dict("records"):
        name = str(row["measure"])
        scale, digits = (1, 2) if name in UNITS else (100, 1)
        unit = f", {UNITS[name]}" if name in UNITS else ", %"
        values = [f"{scale * row[side]:.{digits}f}" for side in ("first", "second")]
        table.add_row(LABELS[name] + unit, *values, _change(row, scale, digits))
    return table


def class_changes(comparison: Comparison) -> Table | None:
    """The classes that lost and gained most, where their flips are more uneven than chance makes them."""
    classes = comparison.classes
    changed = classes[(classes["p_adjusted"] < 0.05) & (classes["difference"] != 0)]
    if changed.empty:
        return None
    largest = changed.reindex(changed["difference"].abs().sort_values(ascending=False, kind="stable").index)
    table = Table(title="Classes that changed, adjusted p below 0.05", title_justify="left")
    table.add_column("class")
    for name in ("images", "first, %", "second, %", "difference"):
        table.add_column(name, justify="right")
    for row in largest.head(_CLASSES).to_dict("records"):
        shares = [f"{100 * row[side]:.1f}" for side in ("first", "second")]
        table.add_row(escape(visible(str(row["class_name"]))), f"{row['images']:,}", *shares, _change(row, 100, 1))
    if len(changed) > _CLASSES:
        table.caption = f"and {len(changed) - _CLASSES:,} more"
    return table


def _change(row: Mapping[Any, Any], scale: float, digits: int) -> str:
    difference, low, high = (scale * row[key] for key in ("difference", "difference_low", "difference_high"))
    return f"{difference:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"
