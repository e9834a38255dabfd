"""Copied code: the Python and the command run as they stand, and give the numbers of the record."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import classlens
from classlens.cli import app
from classlens.lens.means_file import write_means
from classlens.models.classes import Classes
from classlens.render.edit_record import edit_record, plan_of
from classlens.render.edit_record.code import Setting, as_command, as_python
from tests.forward.edits.random_means import random_means

MODEL = "builtin:cifar10"


def write_photo(path: Path, seed: int) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 52, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan(**options: Any) -> dict[str, Any]:
    return {
        "edits": [
            {"edit": "KeepTokens", "mask": [*range(12), *range(20, 64)]},
            {"edit": "AblateHeads", "heads": [1, 2], "blocks": [3], "to": "means"},
            {"edit": "AblateNeurons", "units": [5, 17], "blocks": [2]},
            {"edit": "CutAttention", "queries": "cls", "keys": [30, 31], "renormalize": True, "blocks": "all"},
            {"edit": "AblateSublayer", "sublayer": "attn", "blocks": [4], "to": "means"},
            {"edit": "Patch", "site": "resid_post", "blocks": [1], "tokens": [7]},
        ],
        "source": {"photo": 1},
        **options,
    }


@pytest.mark.parametrize("names", [("photo.png", "other.png"), ('it\'s a "cat"; $(x).png', "-- \u202e.png")])
def test_python_and_command_give_the_numbers_of_the_record(names: tuple[str, str], here: Path) -> None:
    photo, source = (str(write_photo(here / name, seed)) for seed, name in enumerate(names))
    lens = classlens.load(MODEL, crop_pct=0.9)
    means = random_means(lens.view)
    write_means(means, here / "means.safetensors", {})
    chosen = plan_of(plan(target=3, against=5))
    record = edit_record(lens, lens.trace(photo), chosen, source=lens.trace(source).pixels, means=means)
    setting = Setting(MODEL, names[0], {"crop_pct": 0.9, "mean": None}, source=names[1], means="means.safetensors")
    tokens = lens.view.tokens(lens.view.input_size).count

    python = as_python(chosen, setting, target=3, tokens=tokens, classes=lens.classes)
    scope: dict[str, Any] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(python, "copied.py", "exec"), scope)
    for row in record["classes"]:
        for name in ("original", "edited"):
            assert float(scope[name].model_logits[0, row["index"]]) == pytest.approx(row[name]["logit"], abs=1e-6)
    picture = np.array(record["map"]["edited"], dtype=float)  # None is NaN
    kept = ~np.isnan(picture)
    np.testing.assert_allclose(picture[kept], scope["picture"].values[0][kept], rtol=0, atol=1e-6)
    assert kept.sum() == 64 - 9, "nine image tokens are dropped"
    last = printed.getvalue().splitlines()[-1]
    assert last.startswith(record["predictions"]["edited"]["name"])

    command = as_command(chosen, setting, target=3, classes=lens.classes)
    program, *words = shlex.split(command)
    assert program == "classlens"
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    report = json.loads((here / "classlens-report" / "inspect.json").read_text(encoding="utf-8"))
    assert report["edits"] == record["edits"]
    (image,) = report["images"]
    assert (image["target"]["index"], image["against"]["index"]) == (3, 5)
    logits = {row["index"]: row["edited"]["logit"] for row in record["classes"]}
    for guess in image["predictions"]:
        assert guess["logit"] == pytest.approx(logits[guess["index"]], abs=1e-6)
    parts = image["attribution"]
    total = parts["embed"] + np.sum(parts["attention"]) + sum(parts["mlp"]) + parts["bias"] + sum(parts["edit"])
    assert total == pytest.approx(parts["logit"], abs=1e-4), "the contributions of an edited pass sum to its logit"


def test_names_of_classes_do_not_leave_their_comment_or_argument() -> None:
    classes = Classes(("a\nprint('acted')", "0", "1"))
    setting = Setting(MODEL, "photo.png")
    chosen = plan_of({"edits": [{"edit": "NoCls"}]})
    python = as_python(chosen, setting, target=0, tokens=65, classes=classes)
    assert "target = 0  # a\\nprint" in python
    assert as_command(chosen, setting, target=2, classes=classes).endswith("--class 2 --edit NoCls")
    # Class 1 is named 0, so its name is its index to the command line, and the index of another class by name.
    assert "--class 0 " in as_command(chosen, setting, target=1, classes=classes)


def test_options_of_the_model_are_arguments_and_flags(here: Path) -> None:
    options = {
        "checkpoint": Path("weights.safetensors"),
        "class_names": Path("names.txt"),
        "img_size": (224, 192),
        "mean": (0.5, 0.4, 0.3),
        "multi_label": True,
        "device": None,
    }
    setting = Setting("vit_tiny_patch16_224", "-photo.png", options)
    chosen = plan_of({"edits": []})
    python = as_python(chosen, setting, target=0, tokens=197, classes=Classes(("cat",)))
    assert 'checkpoint=Path("weights.safetensors"), class_names=Path("names.txt"), img_size=(224, 192)' in python
    assert "device" not in python
    assert shlex.split(as_command(chosen, setting, target=0, classes=Classes(("cat",)))) == [
        *("classlens", "inspect", "./-photo.png", "--model", "vit_tiny_patch16_224"),
        *("--checkpoint", "weights.safetensors", "--classes", "names.txt", "--img-size", "224,192"),
        *("--mean", "0.5,0.4,0.3", "--multi-label", "--class", "0"),
    ]
