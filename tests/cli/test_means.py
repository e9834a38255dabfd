"""``classlens means`` as it is typed: what it writes and says, and its errors."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import classlens
from classlens.cli import app
from tests.data.pictures import folder
from tests.refusals import complaints

MODEL = ("--model", "builtin:cifar10", "--workers", "0")
DOCS = Path(__file__).parents[2] / "docs"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return folder(tmp_path_factory.mktemp("data") / "images", 20)


def test_means_from_a_command(data: str, tmp_path: Path) -> None:
    out = tmp_path / "means.safetensors"
    result = run("means", *MODEL, "--data", data, "--out", out, "--by-class", "--per-class", "1")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines == ["Means of 10 images, and of 10 classes, at 6 blocks and 65 tokens.", f"Means: {out}"]
    means = classlens.load_means(out)
    assert (means.images, len(means.class_images)) == (10, 10)
    again = run("means", *MODEL, "--data", data, "--out", out, "--by-class", "--per-class", "1", "--log-json")
    assert again.exit_code == 0, again.output
    (record,) = [json.loads(line) for line in again.stdout.splitlines()]
    assert (record["event"], record["file"], record["images"], record["classes"]) == ("finished", str(out), 10, 10)


def test_skipped_images_are_named(tmp_path: Path) -> None:
    spec = folder(tmp_path / "images", 12)
    for file in sorted((tmp_path / "images").rglob("*.png"))[:7]:
        file.write_bytes(b"no image")
    given = ("means", *MODEL, "--data", spec, "--out", tmp_path / "means.safetensors")
    assert run(*given).exit_code == 2
    result = run(*given, "--skip-bad")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Means of 5 images, at")
    assert [line.partition(" ")[0] for line in lines[1:6]] == 5 * ["Skipped"]
    assert lines[6] == "… and 2 more."


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--data", "folder:/nowhere"), "is not a folder"),
        (("--split", "validation"), "has no split 'validation'"),
        (("--batch-size", "many"), "batch_size 'many' cannot be used"),
        (("--limit", "0"), "limit 0 cannot be used"),
        (("--out", "means.pt"), "ending in .safetensors"),
        (("--engine", "cloud"), "engine 'cloud' is not known"),
        (("--model", "builtin:cifar"), "builtin:cifar"),
    ],
)
@pytest.mark.wrong_types
def test_mistakes_are_one_line_and_exit_with_2(data: str, tmp_path: Path, more: tuple[str, ...], says: str) -> None:
    result = run("means", *MODEL, "--data", data, "--out", tmp_path / "means.safetensors", *more)
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert len(complaints(result.stderr)) == 1
    assert list(tmp_path.iterdir()) == []


def test_other_settings_and_places_that_cannot_be_written(data: str, tmp_path: Path) -> None:
    out = tmp_path / "means.safetensors"
    assert run("means", *MODEL, "--data", data, "--out", out).exit_code == 0
    before = out.read_bytes()
    result = run("means", *MODEL, "--data", data, "--out", out, "--limit", "10")
    assert (result.exit_code, out.read_bytes()) == (2, before)
    assert "images 20, not 10" in result.stderr
    (tmp_path / "file").write_text("dear")
    result = run("means", *MODEL, "--data", data, "--out", tmp_path / "file" / "means.safetensors")
    assert result.exit_code == 2, result.output
    assert len(complaints(result.stderr)) == 1


def test_the_example_of_the_documentation(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command and its code, on the images of this test."""
    text = (DOCS / "edits.md").read_text(encoding="utf-8").partition("## Means of a data set")[2]
    command = re.search(r"^    classlens (means .*)$", text, flags=re.MULTILINE)
    code = re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert command is not None
    assert code is not None
    monkeypatch.chdir(tmp_path)
    result = run(*command[1].replace("cifar10:/data", data).split(), "--workers", "0")
    assert result.exit_code == 0, result.output
    names: dict[str, Any] = {}
    exec(code[1], names)
    plain = names["lens"].trace(names["pixels"]).model_logits
    for name in ("without_heads", "like_a_cat"):
        assert float(abs(names[name].model_logits - plain).max()) > 0.01
