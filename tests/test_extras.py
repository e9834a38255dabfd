"""Extras: the core works without their libraries, and what needs one says so before any work."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

import classlens
from classlens.cli import app
from classlens.extras import COMMANDS, LIBRARIES
from tests.refusals import refused

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
IMPORTED_AS = {"scikit-learn": "sklearn"}
GROUP: Any = get_command(app)
OPTIONAL = sorted(
    {name for libraries in LIBRARIES.values() for name in libraries}
    | {"ray", "datasets", "transformers", "open_clip", "skimage", "h5py", "h5netcdf"}
)


def declared(extra: str) -> set[str]:
    """Names by which the libraries of an extra are imported, those of the extras in it included."""
    names: set[str] = set()
    for requirement in PROJECT["optional-dependencies"][extra]:
        name, others = re.match(r"([\w-]+)(?:\[([\w,-]+)\])?", requirement).groups()
        names |= {each for other in others.split(",") for each in declared(other)} if name == "classlens" else {name}
    return {IMPORTED_AS.get(name, name) for name in names}


def test_the_table_agrees_with_the_package() -> None:
    assert {extra: set(libraries) for extra, libraries in LIBRARIES.items()} == {
        extra: declared(extra) for extra in LIBRARIES
    }
    assert set(COMMANDS) <= set(GROUP.commands)
    core = {re.match(r"[\w-]+", requirement)[0] for requirement in PROJECT["dependencies"]}
    assert not core & {"pandas", "zarr", "numcodecs", "scikit-learn", "scipy", "pyarrow", "fsspec", "filelock", "ray"}
    tools = {"pytest", "ruff", "mkdocs", "hypothesis", "scikit-image"}
    assert declared("explore") < declared("all")
    assert not tools & declared("all")


# Libraries that cannot be imported. Those which xarray, torch and huggingface_hub need are theirs alone.
PROGRAM = """
import builtins, json, sys
optional, commands = json.loads(sys.argv[1])
theirs = {"pandas", "fsspec", "filelock"}
sys.modules.update(dict.fromkeys(set(optional) - theirs))
plain = builtins.__import__

def watched(name, globals=None, *rest, **named):
    importer = (globals or {}).get("__name__", "")
    assert not (name.partition(".")[0] in theirs and importer.startswith("classlens")), importer
    return plain(name, globals, *rest, **named)

builtins.__import__ = watched
from typer.testing import CliRunner
from classlens.cli import app
for command in commands:
    result = CliRunner().invoke(app, command)
    print(json.dumps([command, result.exit_code, result.output, repr(result.exception)]))
builtins.__import__ = plain
import classlens
for name in ("measure", "open_store", "analyze"):
    try:
        getattr(classlens, name)
    except classlens.ClasslensError as error:
        print(error)
"""


def test_the_core_runs_without_any_extra(tmp_path: Path) -> None:
    photo, model = str(tmp_path / "photo.png"), "builtin:cifar10"
    Image.effect_noise((48, 40), 80).convert("RGB").save(photo)
    commands = [
        ["inspect", photo, "--model", model, "--out", "inspected"],
        ["explain", photo, "--model", model, "--out", "explained"],
        ["sweep", photo, "--model", model, "--corruption", "blur", "--over", "tokens", "--out", "swept"],
        ["check", model],
        ["models", "--search", "vit_tiny"],
        ["memories", model],
        *([command, "--help"] for command in GROUP.commands),
    ]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([OPTIONAL, commands])],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"JAXTYPING_DISABLE": "1"},
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[[")]
    assert [result for result in results if result[1] != 0] == []
    assert [result[0] for result in results] == commands
    assert {path.name for path in tmp_path.iterdir()} == {"photo.png", "inspected", "explained", "swept"}
    refusals = [line for line in done.stdout.splitlines() if "needs zarr, which cannot be imported (" in line]
    assert [line.split()[0] for line in refusals] == ["classlens.measure", "classlens.open_store", "classlens.analyze"]
    assert all(line.endswith("): pip install 'classlens[store]'") for line in refusals)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_names_its_extra_before_any_work(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = LIBRARIES[COMMANDS[command].rpartition(",")[2]][-1]
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.chdir(tmp_path)
    args = [command]
    for parameter in GROUP.commands[command].params:
        if parameter.required:
            args += ["x"] if parameter.param_type_name == "argument" else [parameter.opts[0], "x"]
    result = CliRunner().invoke(app, args)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: {command} needs {missing}, which cannot be imported (")
    assert line.endswith(f"): pip install 'classlens[{COMMANDS[command]}]'")
    assert list(tmp_path.iterdir()) == []


def test_probes_of_scikit_learn_name_their_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    refused(
        lambda: classlens.probe("builtin:cifar10", "folder:x", "folder:x", tmp_path / "out", kind="logistic"),
        "kind 'logistic' needs sklearn",
        "pip install 'classlens[probes]'",
    )
