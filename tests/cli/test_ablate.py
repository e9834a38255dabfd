"""``classlens ablate``: its folder, its figures, its errors."""

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

MODEL = ("--model", "builtin:cifar10", "--workers", "0")


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(app, ["ablate", *map(str, args)], env={"COLUMNS": "120"})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return folder(tmp_path_factory.mktemp("data") / "images", 16, ["cat", "dog"])


def test_a_folder_of_results(data: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = (*MODEL, "--data", data, "--out", out, "--heads", "2", "--draws", "2", "--resamples", "100")
    result = run(*given, "--to", "zero", "--test-classes", "dog")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"Summary: {out}/results/summary.md"
    results = out / "results"
    tables = ("agreement", "effects", "held_out", "pair_tests", "pairs")
    figures = [f"{name}.{ending}" for name in ("agreement", "effects", "held_out") for ending in ("png", "svg")]
    expected = {f"{name}.csv" for name in tables} | {*figures, "ablation.json", "summary.md"}
    assert {path.name for path in results.iterdir()} == expected
    for name in figures:
        if name.endswith("png"):
            with Image.open(results / name) as figure:
                assert min(figure.size) > 300
        else:
            assert ElementTree.parse(results / name).getroot().tag.endswith("svg")
    effects = pd.read_csv(results / "effects.csv")
    assert set(effects["images"]) == {"all", "right", "wrong", "dog"}
    text = (results / "summary.md").read_text()
    best = effects[(effects["images"] == "all") & (effects["score"] == "ablation")].set_index(["block", "head"])
    block, head = best["value"].abs().idxmax()
    row = best.loc[(block, head)]
    interval = f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})".replace("-", "−")
    assert f"| {block}.{head} | {interval} |" in text
    record = json.loads((results / "ablation.json").read_text())
    assert record["settings"] == {
        "model": "builtin:cifar10",
        "data": data,
        "to": "zero",
        "heads": 2,
        "draws": 2,
        "pairs": 10,
        "seed": 0,
    }
    again = run(*given, "--to", "zero", "--log-json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout.splitlines()[-1])["event"] == "finished"


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--to", "none.safetensors"), ["none.safetensors"]),
        (("--to", "zero", "--heads", "24"), ["24 heads", "smaller"]),
        (("--to", "zero", "--test-classes", "horse"), ["'horse'", "0 images"]),
    ],
)
def test_refusals(data: str, options: tuple[str, ...], parts: list[str], tmp_path: Path) -> None:
    result = run(*MODEL, "--data", data, "--out", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert all(part in result.stderr for part in parts), result.stderr
    assert not (tmp_path / "out").exists()
