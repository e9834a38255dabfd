"""Tables of the documentation that list registries, filled in when the site is built.

A page holds a marker, ``<!-- table: methods -->``, and mkdocs shows the table of ``classlens.METHODS`` in its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

MARKER = re.compile(r"^<!-- table: ([\w-]+) -->$", flags=re.MULTILINE)

Columns = Mapping[str, Callable[[str, Any], str]]
"""Text of a cell by the heading of its column, from the name and the record of a row."""


def column(field: str) -> Callable[[str, Any], str]:
    """A column that shows a field of each record: a text, or names with commas."""

    def cell(_: str, record: Any) -> str:
        value = getattr(record, field, None)
        return value or "" if value is None or isinstance(value, str) else ", ".join(f"`{item}`" for item in value)

    return cell


def table(rows: Mapping[str, Any], columns: Columns) -> str:
    """A Markdown table with a row for each record."""
    lines: list[Sequence[str]] = [["", *columns], ["---"] * (len(columns) + 1)]
    lines += [[f"`{name}`", *(cell(name, rows[name]) for cell in columns.values())] for name in rows]
    escaped = ([" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


REGISTRIES: Mapping[str, tuple[str, Columns]] = {
    "methods": ("classlens.explain.registry:METHODS", {"explanation": column("about"), "options": column("options")}),
    "metrics": ("classlens.tasks.evaluation.registry:METRICS", {"measures": column("about"), "needs": column("needs")}),
    "layouts": ("classlens.data.registry:LAYOUTS", {"data": column("about")}),
    "conditions": ("classlens.tasks.tokens.conditions:CONDITIONS", {"meaning": column("about"), "needs": column("needs")}),
    "experiments": ("classlens.analysis.registry:EXPERIMENTS", {"shows": column("about"), "needs": column("needs")}),
    "edits": ("classlens.forward.edits.registry:EDITS", {"effect": column("about")}),
    "families": ("classlens.models.families:FAMILIES", {"models": column("about")}),
}


def commands() -> str:
    from typer.main import get_command

    from classlens.cli import app

    group: Any = get_command(app)
    return table(group.commands, {"purpose": lambda _, command: command.get_short_help_str(200)})


def registry(name: str) -> Mapping[str, Any]:
    module, _, attribute = REGISTRIES[name][0].partition(":")
    rows: Mapping[str, Any] = getattr(import_module(module), attribute)
    return rows


def filled(name: str) -> str:
    """The table of a marker; raises KeyError for an unknown one."""
    return commands() if name == "commands" else table(registry(name), REGISTRIES[name][1])


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for every page."""
    return MARKER.sub(lambda marker: filled(marker[1]), markdown)
