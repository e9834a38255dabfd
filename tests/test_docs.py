"""What the documentation says, done."""

from __future__ import annotations

import json
import re
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from classlens.cli import app
from classlens.lens.verify import verify

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.slow
def test_the_table_of_models_is_what_is_measured() -> None:
    """Every family of `classlens models` has an example, every example its row."""
    pytest.importorskip("transformers")
    pytest.importorskip("open_clip")
    table: Any = runpy.run_path(str(DOCS / "models_table.py"))
    page = (DOCS / "models.md").read_text(encoding="utf-8")
    assert table["differences"](page, list(table["rows"]())) == []


def test_the_table_of_models_drifts_where_a_cell_differs() -> None:
    table: Any = runpy.run_path(str(DOCS / "models_table.py"))
    row = table["Row"]("timm", "ViT", "`a`", "cls", "cls", "1e-6", "–", "–")
    page = table["START"] + table["table"]([row]) + table["END"]
    assert table["differences"](page, [row]) == []
    assert table["differences"](page, [replace(row, law2="1e-5")]) == [], "rounding of another machine"
    for change in ({"law2": "1e-4"}, {"law3": "1e-6"}, {"prefix": "cls, dist"}, {"missing": "`resid_mid`"}):
        assert len(table["differences"](page, [replace(row, **change)])) == 1, change
    assert table["differences"](page, [row, row]) == ["3 lines are shown, 4 were made"]


def blocks_of(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_worked_example_of_an_own_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, description, use = blocks_of("own-models.md")
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
