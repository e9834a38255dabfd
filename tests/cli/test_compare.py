"""`classlens compare` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from classlens.cli import app
from tests.analysis.comparison.pairs import SideSpec, drawn_labels, write_side
from tests.refusals import complaints

LABELS = drawn_labels(40)


def run(*args: str | Path | float) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, args)], env={"COLUMNS": "100"})


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("compare")
    first = SideSpec(images=range(40), labels=LABELS, skill=0.95, model="[red]=cmd()", names={0: "=1+1", 1: "\x1b[2J"})
    second = SideSpec(images=range(40), labels=LABELS, skill=0.1, model="b", seed=3)
    return write_side(folder / "before.zarr", first), write_side(folder / "after.zarr", second)


def test_tables_page_and_facts(stores: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(*stores, "--out", out, "--resamples", 20, "--confidence", 0.9)
    assert result.exit_code == 0, result.output
    tables = ("summary", "classes", "images", "flips", "heads", "head_classes", "trajectory")
    assert {path.name for path in out.iterdir()} == {
        "compare.html",
        "compare.json",
        *(f"{name}.csv" for name in tables),
    }
    facts = json.loads((out / "compare.json").read_text())
    assert (facts["images"], facts["statistics"]["confidence"]) == (40, 0.9)
    images = pd.read_csv(out / "images.csv")
    assert (images["kind"] == "broken").sum() == facts["broken"]
    assert "'=1+1" in set(images["image"])
    lines = result.stdout.splitlines()
    assert "First: [red]=cmd()" in lines[0]
    summary = pd.read_csv(out / "summary.csv").set_index("measure").loc["accuracy"]
    shown = next(line for line in lines if "accuracy, %" in line)
    assert f"{100 * summary['first']:.1f}" in shown
    assert f"{100 * summary['difference']:+.1f} ({100 * summary['difference_low']:+.1f} to " in shown
    assert "Classes that changed" in result.stdout
    assert run(*stores[::-1], "--out", out, "--resamples", 20).exit_code == 0, "an earlier comparison is replaced"
    assert json.loads((out / "compare.json").read_text())["fixed"] == facts["broken"]


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["{before}", "nothing.zarr"], "does not exist"),
        (["{before}", "{after}", "--confidence", "2"], "give a number between 0 and 1"),
        (["{before}", "{after}", "--resamples", "0"], "give a whole number of at least 1"),
        (["{before}", "{after}", "--out", "{folder}"], "holds other files and no compare.json"),
    ],
)
def test_bad_input_is_refused(stores: tuple[Path, Path], tmp_path: Path, args: list[str], sentence: str) -> None:
    places = {"before": stores[0], "after": stores[1], "folder": stores[0].parent}
    out = [] if "--out" in args else ["--out", str(tmp_path / "out")]
    result = run(*(arg.format(**places) for arg in args), *out)
    assert result.exit_code == 2
    assert sentence in result.stderr
    (line,) = complaints(result.stderr)
    assert line.startswith("Error: ")
    assert not (tmp_path / "out").exists()


def test_what_is_not_compared_is_said(tmp_path: Path) -> None:
    store = write_side(tmp_path / "a.zarr", SideSpec(images=range(5), labels=LABELS, attribution=False))
    result = run(store, store, "--out", tmp_path / "out", "--resamples", 5)
    assert result.exit_code == 0, result.output
    assert "Heads were not compared: store" in result.stdout
    assert "Classes that changed" not in result.stdout
