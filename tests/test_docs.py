"""Documentation that agrees with the code: tables, commands, options, public names, source files and links."""

from __future__ import annotations

import ast
import json
import re
import runpy
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.main import get_command
from typer.testing import CliRunner

import classlens
from classlens.cli import app
from classlens.lens.verify import verify

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SOURCE = Path(classlens.__file__).parent
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"])
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
HOOKS: dict[str, Any] = runpy.run_path(str(DOCS / "hooks.py"))


@pytest.mark.slow
def test_the_table_of_models_matches_measurements() -> None:
    """Every family of `classlens models` has an example, every example its row."""
    pytest.importorskip("transformers")
    pytest.importorskip("open_clip")
    table: Any = runpy.run_path(str(DOCS / "models_table.py"))
    assert table["differences"](TEXTS["docs/models.md"], list(table["rows"]())) == []


def test_a_changed_cell_of_the_table_of_models_is_reported() -> None:
    table: Any = runpy.run_path(str(DOCS / "models_table.py"))
    row = table["Row"]("timm", "ViT", "`a`", "cls", "cls", "1e-6", "–", "–")
    page = table["START"] + table["table"]([row]) + table["END"]
    assert table["differences"](page, [row]) == []
    assert table["differences"](page, [replace(row, law2="1e-5")]) == [], "rounding of another machine"
    for change in ({"law2": "1e-4"}, {"law3": "1e-6"}, {"prefix": "cls, dist"}, {"missing": "`resid_mid`"}):
        assert len(table["differences"](page, [replace(row, **change)])) == 1, change
    assert table["differences"](page, [row, row]) == ["3 lines are shown, 4 were made"]


@pytest.mark.parametrize("name", [*HOOKS["REGISTRIES"], "commands"])
def test_a_table_lists_every_record(name: str) -> None:
    assert any(f"<!-- table: {name} -->" in text for text in TEXTS.values()), "no page shows it"
    rows = HOOKS["filled"](name).splitlines()[2:]
    records = get_command(app).commands if name == "commands" else HOOKS["registry"](name)  # type: ignore[attr-defined]
    assert len(rows) == len(records)
    for row, (record_name, record) in zip(rows, records.items(), strict=True):
        first, description = row.strip("| ").split(" | ")[:2]
        assert record_name in first or first == record.label
        assert description.strip(), "every record says what it is"


def test_every_table_of_an_atlas_and_of_a_comparison_has_a_table_of_columns() -> None:
    assert HOOKS["ATLAS_TABLES"] == tuple(HOOKS["registry"]("atlas"))
    assert HOOKS["COMPARISON_TABLES"] == tuple(HOOKS["registry"]("comparison"))


@pytest.mark.parametrize("page", TEXTS)
def test_every_marker_has_a_table(page: str) -> None:
    assert "<!-- table" not in HOOKS["on_page_markdown"](TEXTS[page])


def test_cells_stay_in_their_column() -> None:
    columns = {"name": HOOKS["code_name"], "x|y": lambda name, record: f"{name} |{record}|\nnext"}
    table = "| name | x\\|y |\n| --- | --- |\n| `a` | a \\|1\\| next |"
    assert HOOKS["table"]({"a": 1}, columns) == table


def fenced_commands(text: str) -> Iterator[list[str]]:
    """The words of every command in a block of code; continued lines are joined."""
    fenced = "".join(re.findall(r"```(?:bash|console)\n(.*?)```", text.replace("\\\n", " "), flags=re.DOTALL))
    for line in re.findall(r"^classlens (.*)$", fenced, flags=re.MULTILINE):
        yield shlex.split(line, comments=True)


def commands_of(text: str) -> Iterator[list[str]]:
    """The words of every command in code: fenced, indented or within a line."""
    yield from fenced_commands(text)
    text = text.replace("\\\n", " ")
    for line in re.findall(r"^ {4}classlens (.*)$|`classlens ([^`\n]+)`", text, flags=re.MULTILINE):
        yield shlex.split("".join(line), comments=True)


@pytest.mark.parametrize("page", TEXTS)
def test_commands_and_options_exist(page: str) -> None:
    known: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    for command, *words in commands_of(TEXTS[page]):
        assert command in known, f"classlens {command}"
        options = {option for parameter in known[command].params for option in parameter.opts} | {"--help"}
        for word in words:
            if word.startswith("--"):
                assert word.partition("=")[0] in options, f"classlens {command} {word}"
    every = {option for command in known.values() for parameter in command.params for option in parameter.opts}
    if page != "docs/benchmarks.md":  # options of the benchmarks
        assert set(re.findall(r"`(--[a-z-]+)", TEXTS[page])) <= every


@pytest.mark.parametrize("page", TEXTS)
def test_python_code_uses_public_names(page: str) -> None:
    for code in re.findall(r"```python[^\n]*\n(.*?)```", TEXTS[page], flags=re.DOTALL):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "classlens":
                assert node.attr in classlens.__all__, f"classlens.{node.attr}"
            if isinstance(node, ast.ImportFrom) and node.module == "classlens":
                assert {alias.name for alias in node.names} <= set(classlens.__all__)


def test_the_page_of_the_api_lists_every_public_name() -> None:
    listed = re.findall(r"^::: classlens\.(\w+)$", TEXTS["docs/api.md"], flags=re.MULTILINE)
    assert sorted(listed) == sorted(classlens.__all__)


@pytest.mark.parametrize("page", TEXTS)
def test_source_files_exist(page: str) -> None:
    folders = "|".join(path.name for path in SOURCE.iterdir() if path.is_dir())
    for path in re.findall(rf"`((?:{folders})/[\w/]*(?:\.py)?)`", TEXTS[page]):
        assert (SOURCE / path).exists(), path


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_outside_the_site_lead_to_files(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)", TEXTS[page]):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_the_citation_names_the_version_of_the_changelog() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    (cited,) = re.findall(r"^version: (.*)$", text, flags=re.MULTILINE)
    version, date = re.search(r"^## \[(\d.*)\] - (.*)$", TEXTS["CHANGELOG.md"], flags=re.MULTILINE).groups()
    assert cited == version
    assert re.fullmatch(r"unreleased|\d{4}-\d\d-\d\d", date)


def test_the_worked_example_of_an_own_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, description, use = re.findall(r"```python\n(.*?)```", TEXTS["docs/own-models.md"], flags=re.DOTALL)
    assert len([line for line in description.splitlines() if line.strip()]) < 40
    names: dict[str, Any] = {}
    exec(model + description + use, names)
    assert capsys.readouterr().out == "('image', 'block', 'head', 'token')\n"
    laws = verify(names["lens"].view, torch.randn(2, 3, 32, 32))
    assert all(law.holds and law.error is not None for law in laws), laws

    file = tmp_path / "mine.py"
    file.write_text(model + description, encoding="utf-8")
    result = CliRunner().invoke(app, ["check", f"{file}:make", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["prefix"] == ["cls"]
