"""Options of the documentation are those of the commands, as their help prints them."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from classlens.cli import app

DOCS = Path(__file__).parent.parent.parent / "docs"
OPTIONS: dict[str, Any] = runpy.run_path(str(DOCS / "options.py"))
COMMANDS = list(get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_section_has_every_option_of_the_help(name: str) -> None:
    section = OPTIONS["section"](name)
    # The help is drawn in a box, as wide as it likes.
    result = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "300", "TERM": "dumb", "NO_COLOR": "1"})
    printed = set(re.findall(r"^[│|\s*]*(--[a-z][a-z-]*)", result.stdout, flags=re.MULTILINE)) - {"--help"}
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert printed == {row.split("`")[1] for row in rows if row.startswith("| `--")}
    assert all(row.rstrip("| ").count(" | ") >= 2 and row.rstrip("| ")[-1] in ".…)" for row in rows), "no help"


def test_types_and_defaults() -> None:
    table = OPTIONS["option_table"]("compare", ["--by", "--resamples"]).splitlines()[2:]
    assert table[0].startswith("| `--by` | `content`, `name` |  | ")
    assert table[1].startswith("| `--resamples` | number | `2000` | ")
    assert "| number from 0 to 65535 | `8000` |" in OPTIONS["option_table"]("explore", ["--port"])
    assert "| text, repeatable |" in OPTIONS["option_table"]("inspect", ["--class"])
    with pytest.raises(KeyError):
        OPTIONS["option_table"]("compare", ["--no-such-option"])


def test_every_marker_is_filled() -> None:
    for page in DOCS.rglob("*.md"):
        text = OPTIONS["on_page_markdown"](page.read_text(encoding="utf-8"))
        assert "<!-- options" not in text
        assert "<!-- commands -->" not in text
    text = OPTIONS["on_page_markdown"]("<!-- commands -->")
    assert re.findall(r"^## ([\w-]+) \{", text, flags=re.MULTILINE) == COMMANDS
