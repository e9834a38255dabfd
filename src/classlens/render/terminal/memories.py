"""Memories and their classes, for a terminal and for programs."""

from __future__ import annotations

from typing import Any

import xarray as xr
from rich.markup import escape
from rich.table import Table

_KINDS = {"attn": "channel", "mlp": "hidden unit"}


def memory_record(found: xr.Dataset) -> dict[str, Any]:
    """What ``lens.memories`` found, as plain numbers and text: its attributes, and ``places`` with the best first."""
    columns = {str(name): values.values.tolist() for name, values in found.data_vars.items()}
    places = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return {**{str(key): value for key, value in found.attrs.items()}, "places": places}


def memory_table(found: xr.Dataset) -> Table:
    """The same as a table; its title says what is shown."""
    about = found.attrs
    kind, where = _KINDS[about["sublayer"]], f"block {about['block']} of {about['model']}"
    if "unit" in about:
        table = Table(title=escape(f"Classes of {kind} {about['unit']}, {about['sublayer']}, {where}"))
    else:
        table = Table(title=escape(f"Memories ({kind}s), {about['sublayer']}, {where}"))
        table.add_column(kind, justify="right")
    table.add_column("class")
    table.add_column("score", justify="right")
    table.add_column("cosine", justify="right")
    if "top" in found:
        table.add_column("its top class")
    for place in memory_record(found)["places"]:
        cells = [place["class_name"], f"{place['score']:.3f}", f"{place['cosine']:.3f}"]
        first = [str(place["unit"])] if "unit" in place else []
        last = [place["top"]] if "top" in place else []
        table.add_row(*(escape(cell) for cell in [*first, *cells, *last]))
    return table
