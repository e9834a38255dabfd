"""`classlens reliability` as it is typed, from measured images to a linked report."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from classlens import measure
from classlens.cli import app
from tests.data.pictures import folder
from tests.refusals import complaints


def run(*args: str | Path | int) -> Result:
    return CliRunner().invoke(app, ["reliability", *map(str, args)], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reliability")
    data = folder(root / "images", 40)
    measure("builtin:cifar10", data, root / "run.zarr", sites=["resid_post"], memories=False, workers=0)
    return root / "run.zarr"


def test_from_a_store_to_a_linked_report(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("--train", store, "--out", out, "--reports", 3, "--resamples", 50)
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == {
        *("reliability.json", "scores.csv", "curves.csv", "images.csv", "summary.md", "report.html"),
        *("risk_coverage.png", "risk_coverage.svg"),
    }
    facts = json.loads((out / "reliability.json").read_text())
    assert facts["train"]["images"] == facts["test"]["images"] == 20
    images = pd.read_csv(out / "images.csv")
    assert set(pd.read_csv(out / "scores.csv")["method"]) <= set(images.columns)
    links = re.findall(r"\[(.*?)\]\(report\.html#image-(\d)\)", (out / "summary.md").read_text())
    assert [number for _, number in links] == ["0", "1", "2"]
    assert [name.replace("\\", "") for name, _ in links] == images["image"].head(3).tolist()
    shown = json.loads(re.search(r'id="record">(.*?)</script>', (out / "report.html").read_text())[1])
    names = [image["name"] for image in shown["images"]]
    assert all(name.endswith(label) for name, label in zip(images["image"].head(3), names, strict=True))


def test_refusals(store: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "full"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    for arguments, words in (
        (("--train", "/nowhere.zarr"), "does not exist"),
        (("--train", store, "--test", store), "share 40 images"),
        (("--train", store, "--out", foreign), "holds other files"),
        (("--train", store, "--reports", 1, "--num-classes", 3), "classes"),
    ):
        result = run("--out", tmp_path / "new", "--resamples", 5, *arguments)
        assert result.exit_code == 2, result.output
        assert words in " ".join(complaints(result.stderr)), result.output
        assert not (tmp_path / "new").exists()
    assert [path.name for path in foreign.iterdir()] == ["notes.txt"]
