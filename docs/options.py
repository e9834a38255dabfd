"""Options of the commands, taken from the commands themselves when the site is built.

``<!-- commands -->`` becomes a section for every command; ``<!-- options: probe --sites --pooled -->`` a table of some
options of one, or of all without names.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from typer.main import get_command

from classlens.cli import app

MARKER = re.compile(r"^<!-- (?:commands|options: ([\w-]+)((?: --[\w-]+)*)) -->$", flags=re.MULTILINE)
WORDS = {"str": "text", "bool": "", "int": "number", "float": "number", "path": "path"}
"""Types in words; a flag has none."""


def command(name: str) -> tuple[Any, Any]:
    """A command with its help filled in, and its context; raises KeyError for an unknown one."""
    group: Any = get_command(app)
    root = group.make_context("classlens", [], resilient_parsing=True)
    group.commands[name]
    known = group.get_command(root, name)
    return known, known.make_context(name, [], parent=root, resilient_parsing=True)


def type_words(parameter: Any, context: Any) -> str:
    """The type of an option: ``text``, ``texts`` where it may be given again, ``number ≥ 1``, or its choices."""
    shown = parameter.display_type(context) if hasattr(parameter, "display_type") else parameter.type.name
    inner = re.sub(r"^list\[(.*)\]$", r"\1", shown.strip("<>"))
    if "|" in inner:
        return ", ".join(f"`{choice}`" for choice in inner.split("|"))
    words = WORDS.get(inner.removesuffix(" range"), inner)
    if inner.endswith(" range"):
        words += f" ≥ {parameter.min}" if parameter.max is None else f" from {parameter.min} to {parameter.max}"
    return f"{words}, repeatable" if parameter.multiple else words


def default_words(parameter: Any) -> str:
    if parameter.required:
        return "required"
    default = parameter.default
    empty = default is None or default is False or default == () or default == []
    return "" if empty or callable(default) else f"`{default}`"


def option_table(name: str, chosen: Collection[str] = ()) -> str:
    """A table of arguments and options of a command; raises KeyError for an option that it does not have."""
    known, context = command(name)
    parameters = {parameter.opts[0]: parameter for parameter in known.params if not getattr(parameter, "hidden", False)}
    rows = ["| option | value | default | meaning |", "|---|---|---|---|"]
    for option in chosen or parameters:
        parameter = parameters[option]
        label = option if option.startswith("-") else parameter.metavar or option.upper()
        cells = [f"`{label}`", type_words(parameter, context), default_words(parameter), parameter.help]
        rows.append("| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def section(name: str) -> str:
    known, context = command(name)
    usage = " ".join([context.command_path, *known.collect_usage_pieces(context)])
    usage = re.sub(r"\{(.*?)\}(?:\.\.\.)?", r"\1", usage)
    return f"## {name} {{ #{name} }}\n\n{known.help}\n\n```text\n{usage}\n```\n\n{option_table(name)}\n"


def filled(marker: re.Match[str]) -> str:
    if marker[1] is not None:
        return option_table(marker[1], marker[2].split())
    group: Any = get_command(app)
    return "\n".join(map(section, group.commands))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for every page."""
    return MARKER.sub(filled, markdown)
