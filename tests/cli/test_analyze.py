"""`classlens analyze` and `figures` as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from classlens.analysis.registry import EXPERIMENTS
from classlens.cli import app
from tests.analysis.stores import StoreSpec, write_store

QUICK = ("--permutations", "30", "--resamples", "20")


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, args)], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "run.zarr"
    write_store(path, StoreSpec(conditions=("clean",), memories=False, images=6))
    return path


def test_from_a_store_to_figures(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "analysis"
    options = ("--experiments", "evolution, change_rate,compositionality", "--seed", "7", "--confidence", "0.9")
    result = run("analyze", store, "--out", out, *options, *QUICK)
    assert result.exit_code == 0, result.output
    assert "synthetic, compositionality: not measured: memories were not measured: measure anew with --memories" in (
        result.stdout
    )
    assert "synthetic, evolution: in part not measured: condition random_init was not measured" in result.stdout
    assert f"Figures: classlens figures {out}" in result.stdout
    assert sorted(path.name for path in (out / "tables").glob("*.csv")) == [
        "change_rate.csv",
        "evolution.csv",
        "images.csv",
    ]
    assert pd.read_csv(out / "tables" / "evolution.csv")["block"].max() == 2
    record = json.loads((out / "analysis.json").read_text())
    assert record["statistics"] == {"seed": 7, "permutations": 30, "resamples": 20, "confidence": 0.9}
    drawn = run("figures", out, "--formats", "svg")
    assert drawn.exit_code == 0, drawn.output
    assert sorted(drawn.stdout.split()) == sorted(str(path) for path in (out / "figures").iterdir())
    assert {path.suffix for path in (out / "figures").iterdir()} == {".svg"}
    elsewhere = run("figures", out, "--experiments", "evolution", "--out", tmp_path / "mine", "--formats", "png")
    assert elsewhere.exit_code == 0
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["evolution.png", "evolution_on_top.png"]


def test_all_experiments(store: Path, tmp_path: Path) -> None:
    result = run("analyze", store, "--out", tmp_path / "a", "--experiments", "all", *QUICK)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "a" / "analysis.json").read_text())
    named = {*record["tables"], *(missing["experiment"] for missing in record["missing"])}
    assert named == {*EXPERIMENTS, "images"}


@pytest.mark.parametrize("command", ["analyze", "figures"])
def test_help_names_every_experiment(command: str) -> None:
    text = " ".join(run(command, "--help").stdout.split())
    assert all(name in text for name in EXPERIMENTS)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("analyze", "/nowhere.zarr"), "does not exist"),
        (("analyze", "{store}", "--experiments", "evolutoin"), "did you mean 'evolution'"),
        (("analyze", "{store}", "--experiments", ","), "no experiments were given"),
        (("analyze", "{store}", "{store}"), "give each store once"),
        (("analyze", "{store}", "--permutations", "0"), "permutations 0 cannot be used"),
        (("analyze", "{store}", "--confidence", "95"), "confidence 95.0 cannot be used"),
        (("analyze", "{store}", "--seed", "-1"), "seed -1 cannot be used"),
        (("figures", "/nowhere"), "has no tables"),
        (("figures", "/nowhere", "--formats", "gif"), "format 'gif' is not known"),
    ],
)
def test_mistakes_are_one_line_and_exit_with_2(store: Path, tmp_path: Path, args: tuple[str, ...], says: str) -> None:
    out = () if args[0] == "figures" else ("--out", tmp_path / "out")
    result = run(*(arg.format(store=store) for arg in args), *out)
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert not (tmp_path / "out").exists()
