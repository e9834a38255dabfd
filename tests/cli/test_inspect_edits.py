"""`classlens inspect --edit`: the report is that of the edited pass; a bad edit costs one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import classlens
from classlens.cli import app

MODEL = "builtin:cifar10"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for seed, name in enumerate(("photo.png", "other.png")):
        pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*args: str) -> Result:
    return CliRunner().invoke(app, ["inspect", "photo.png", "--model", MODEL, *args], env={"COLUMNS": "200"})


def record() -> dict[str, Any]:
    report: dict[str, Any] = json.loads(Path("classlens-report", "inspect.json").read_text(encoding="utf-8"))
    return report


@pytest.mark.parametrize(
    ("texts", "edits"),
    [
        (
            ["NoCls", "AblateHeads:heads=0,2-3:blocks=4"],
            [classlens.NoCls(), classlens.AblateHeads([0, 2, 3], blocks=[4])],
        ),
        (["AblateSublayer:sublayer=attn:blocks=5"], [classlens.AblateSublayer("attn", blocks=[5])]),
    ],
)
def test_report_is_that_of_the_edited_pass(texts: list[str], edits: list[classlens.Edit], here: Path) -> None:
    result = run(*(word for text in texts for word in ("--edit", text)))
    assert result.exit_code == 0, result.output
    assert f"The model runs with edits: {'; '.join(texts)}" in result.output
    lens = classlens.load(MODEL)
    with lens.edit(*edits):
        trace = lens.trace("photo.png")
        logits = trace.model_logits.values[0]
        ranks = trace.rank("resid_post").values[0]
    (image,) = record()["images"]
    for guess in image["predictions"]:
        assert guess["logit"] == pytest.approx(logits[guess["index"]], abs=1e-6)
    assert image["predictions"][0]["index"] == int(logits.argmax())
    assert image["tokens"]["resid_post"]["rank"] == ranks.tolist()
    parts = image["attribution"]
    total = parts["embed"] + np.sum(parts["attention"]) + sum(parts["mlp"]) + parts["bias"] + sum(parts.get("edit", []))
    assert total == pytest.approx(parts["logit"], abs=1e-4)
    assert ("edit" in parts) == (texts[0].startswith("AblateSublayer"))
    assert "The model runs with edits" in Path("classlens-report", "report.html").read_text(encoding="utf-8")
    assert record()["edits"] == texts


def test_json_names_the_edits(here: Path) -> None:
    assert json.loads(run("--edit", "SelfOnly:blocks=1", "--json").stdout)["edits"] == ["SelfOnly:blocks=1"]
    assert "edits" not in json.loads(run("--json").stdout)
    assert record()["edits"] == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--edit", "NoCLS"], "edit 'NoCLS' is not known; did you mean 'NoCls'"),
        (["--edit", "AblateHeads"], "edit AblateHeads needs heads"),
        (["--edit", "AblateHeads:heads"], "is not NAME:OPTION=VALUE"),
        (["--edit", "AblateHeads:heads=4"], "head 4 does not exist"),
        (["--edit", "AblateNeurons:units=1:blocks=6"], "block 6 does not exist"),
        (["--edit", "KeepTokens:mask=1-64"], "keep [CLS]"),
        (["--edit", "KeepTokens:mask=0-65"], "token 65 does not exist"),
        (["--edit", "Patch:site=mlp_out"], "--edit-source goes with the edit Patch"),
        (["--edit-source", "other.png"], "--edit-source goes with the edit Patch"),
        (["--edit", "Patch:site=mlp_out", "--edit-source", "none.png"], "image 'none.png' does not exist"),
        (["--edit", "Patch:site=mlp_out", "--edit-source", "."], "is a folder of several images"),
        (["--edit", "AblateHeads:heads=1:to=means"], "--edit-means goes with an edit with to=means"),
        (["--edit", "AblateHeads:heads=1:to=means", "--edit-means", "photo.png"], "means 'photo.png' cannot be read"),
    ],
)
def test_bad_edit_costs_one_line(args: list[str], message: str, here: Path) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert sorted(path.name for path in here.iterdir()) == ["other.png", "photo.png"]
