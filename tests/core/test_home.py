"""The home folder in paths, wherever one is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

import classlens
from classlens.cli import app
from classlens.core.home import expanded
from tests.refusals import refused


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "value", ["cat", "~", "~cat/x", "a/~/b", "~cat", 3, None, Path("a/~"), {"a"}, "s3://~/b", b"~/"]
)
def test_what_is_no_path_of_the_home_folder_stays(value: Any) -> None:
    assert expanded(value) is value


def test_forms_in_which_paths_are_given(home: Path) -> None:
    given = ["~/a", Path("~/a"), "folder:~/a", ("model=~/a",), {"out": "~/a", "k": 1}]
    there = f"{home}/a"
    assert expanded(given) == [there, Path(there), f"folder:{there}", (f"model={there}",), {"out": there, "k": 1}]


def test_commands_and_functions_take_it(home: Path) -> None:
    result = CliRunner().invoke(app, ["inspect", "~/none.png", "--out=~/report"])
    assert f"image '{home}/none.png' does not exist" in result.stderr
    for call in (
        lambda: classlens.load("~/mine.py:make"),
        lambda: classlens.load("vit_tiny_patch16_224", checkpoint=Path("~/w.pth")),
        lambda: classlens.open_store("~/run.zarr"),
        lambda: classlens.open_dataset("folder:~/photos"),
        lambda: classlens.measure("builtin:cifar10", "folder:~/photos", "~/run.zarr"),
        lambda: classlens.analyze("~/run.zarr"),
        lambda: classlens.figures("~/analysis"),
        lambda: classlens.load("builtin:cifar10").with_tuned_lens("~/lens.safetensors"),
    ):
        refused(call, str(home))
    Image.new("RGB", (40, 40)).save(home / "photo.png")
    assert len(classlens.load("builtin:cifar10").trace("~/photo.png")) == 1
