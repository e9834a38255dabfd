"""``classlens evaluate``: its folder, its figures, its errors."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from classlens.cli import app
from tests.data.pictures import folder

MODEL = ("--model", "builtin:cifar10")
QUICK = ("--methods", "class_gradient,class_gradient:loss=logit,random", "--steps", "4", "--permutations", "2")


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, args)], env={"COLUMNS": "120"})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return folder(tmp_path_factory.mktemp("data") / "images", 12)


def test_a_folder_of_results(data: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(*MODEL, "--data", data, "--out", out, *QUICK)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Measured 24 images (12 of all 24 as quarters of mosaics) in ")
    assert (
        "segmentation: not measured: the data has no masks that show where the class is: give them (--masks)" in lines
    )
    assert lines[-2:] == [f"Summary: {out}/results/summary.md", f"Curves: {out}/results/curves.png"]
    figures = [f"curves{of}.{ending}" for of in ("", "_insertion", "_randomization") for ending in ("png", "svg")]
    names = ["curves.csv", *figures]
    assert sorted(path.name for path in (out / "results").iterdir()) == [
        *names,
        "evaluation.json",
        "scores.csv",
        "summary.md",
    ]
    with Image.open(out / "results" / "curves.png") as figure:
        assert min(figure.size) > 600
    assert ElementTree.parse(out / "results" / "curves.svg").getroot().tag.endswith("svg")
    scores = pd.read_csv(out / "results" / "scores.csv")
    assert set(scores["method"]) == {"class_gradient", "class_gradient:loss=logit", "random"}
    text = (out / "results" / "summary.md").read_text()
    value = scores[(scores.method == "random") & (scores.measure == "negative_auc")].iloc[0]
    assert f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})" in text
    assert "| class_gradient:loss=logit |" in text
    record = json.loads((out / "results" / "evaluation.json").read_text())
    assert record["missing"].keys() == {"segmentation"}
    again = run(*MODEL, "--data", data, "--out", out, *QUICK, "--metrics", "removal", "--log-json")
    assert again.exit_code == 0, again.output
    assert [json.loads(line)["event"] for line in again.stdout.splitlines()] == ["progress", "finished"]
    # The tables cover the whole store, not only the metric of the last run.
    assert len(pd.read_csv(out / "results" / "scores.csv")) == len(scores)


def test_metrics_without_curves_have_no_figures(data: str, tmp_path: Path) -> None:
    result = run(*MODEL, "--data", data, "--out", tmp_path / "out", *QUICK, "--metrics", "pointing")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"Summary: {tmp_path}/out/results/summary.md"
    assert not list((tmp_path / "out" / "results").glob("*.png"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--steps", "few"), "steps 'few' is not a number: give a number of at least 2, or all"),
        (("--methods", "gradcam"), "did you mean 'grad_cam'"),
        (("--methods", "grad_cam:block=abc"), "block 'abc' cannot be used: give a whole number from 0 to 5"),
        (("--methods", "class_gradient:loss=logit:loss=logit"), "has the option 'loss' twice"),
        (("--metrics", "auc"), "metric 'auc' is not known"),
        (("--data", "folder:/nowhere"), "is not a folder"),
        pytest.param(("--batch-size", "many"), "batch_size 'many' cannot be used", marks=pytest.mark.wrong_types),
    ],
)
@pytest.mark.wrong_types
def test_errors(data: str, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    result = run(*MODEL, "--data", data, "--out", tmp_path / "out", *QUICK, *options)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_results_beside_other_files_are_refused_before_anything_runs(data: str, tmp_path: Path) -> None:
    (tmp_path / "out" / "results").mkdir(parents=True)
    (tmp_path / "out" / "results" / "letter.txt").write_text("dear")
    result = run(*MODEL, "--data", data, "--out", tmp_path / "out", *QUICK)
    assert result.exit_code == 2
    assert "letter.txt" in result.output or "other files" in " ".join(result.output.split())
    assert (tmp_path / "out" / "results" / "letter.txt").read_text() == "dear"
