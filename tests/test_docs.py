"""What the documentation says, done."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from classlens.cli import app
from classlens.lens.verify import verify

DOCS = Path(__file__).parent.parent / "docs"


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
