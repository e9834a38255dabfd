"""Memories and their classes, as a table and as a record."""

from __future__ import annotations

from typing import Any

import xarray as xr
from rich.markup import escape
from rich.table import Table

from classlens.text import visible

_UNITS = {"attn": "channel", "mlp": "hidden unit"}


def memory_record(memories: xr.Dataset) -> dict[str, Any]:
    """The result of ``lens.memories`` as plain numbers and text: its attributes, and ``rows`` with the best first."""
    columns = {str(name): values.values.tolist() for name, values in memories.data_vars.items()}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return {**{str(key): value for key, value in memories.attrs.items()}, "rows": rows}


def memory_table(memories: xr.Dataset) -> Table:
    """The result of ``lens.memories`` as a table, with its sublayer, block and model as the title."""
    attrs = visible(memories.attrs)
    unit, where = _UNITS[attrs["sublayer"]], f"block {attrs['block']} of {attrs['model']}"
    if "unit" in attrs:
        table = Table(title=escape(f"Classes of {unit} {attrs['unit']}, {attrs['sublayer']}, {where}"))
    else:
        table = Table(title=escape(f"Memories ({unit}s), {attrs['sublayer']}, {where}"))
        table.add_column(unit, justify="right")
    table.add_column("class")
    table.add_column("score", justify="right")
    table.add_column("cosine", justify="right")
    if "top" in memories:
        table.add_column("its top class")
    for row in visible(memory_record(memories)["rows"]):
        first = [str(row["unit"])] if "unit" in row else []
        last = [row["top"]] if "top" in row else []
        cells = [*first, row["class_name"], f"{row['score']:.3f}", f"{row['cosine']:.3f}", *last]
        table.add_row(*map(escape, cells))
    return table
