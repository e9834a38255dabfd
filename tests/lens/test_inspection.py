"""Inspections from Python: the folder of the command, in any batches, for classes of each image."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import classlens
from classlens.cli import app
from classlens.errors import ClasslensError
from classlens.lens.lens import Lens


@pytest.fixture(scope="module")
def lens() -> Lens:
    return classlens.load("builtin:cifar10")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(3)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (40, 32, 3), np.uint8)).save(path)
    return [str(path) for path in paths]


def test_the_folder_is_that_of_the_command(lens: Lens, files: list[str], tmp_path: Path) -> None:
    inspection = lens.inspect(files[:1], "cat", "dog")
    assert inspection.write(tmp_path / "python") == tmp_path / "python" / "report.html"
    command = ["inspect", files[0], "--model", "builtin:cifar10", "--class", "cat", "--against", "dog"]
    assert CliRunner().invoke(app, [*command, "--out", str(tmp_path / "command")]).exit_code == 0
    names = sorted(os.listdir(tmp_path / "command"))
    assert sorted(os.listdir(tmp_path / "python")) == names
    assert {"inspect.json", "report.html", "01-tokens.png"} <= set(names)
    for name in names:
        assert (tmp_path / "python" / name).read_bytes() == (tmp_path / "command" / name).read_bytes(), name
    written = json.loads((tmp_path / "python" / "inspect.json").read_text(encoding="utf-8"))
    for image, packed in zip(written["images"], inspection.record["images"], strict=True):
        assert {**image, "attention": packed["attention"]} == packed


def test_pictures_and_names_of_every_kind_of_image(lens: Lens, files: list[str]) -> None:
    inspection = lens.inspect(files)
    assert [image["name"] for image in inspection.record["images"]] == files
    for number, picture in enumerate(inspection.pictures):
        assert picture == lens.trace(files).picture(number)
    assert len(inspection) == 3
    assert repr(inspection) == "Inspection(3 images of 'builtin:cifar10')"
    assert [image["name"] for image in lens.inspect(torch.zeros(2, 3, 32, 32)).record["images"]] == [
        "image 0",
        "image 1",
    ]


def _assert_like(record: Any, expected: Any) -> None:
    """The same texts and whole numbers; numbers of another batch, in float32."""
    if isinstance(expected, dict):
        assert set(record) == set(expected)
        for key, value in expected.items():
            if key != "deflate":
                _assert_like(record[key], value)
    elif isinstance(expected, list):
        assert len(record) == len(expected)
        for one, other in zip(record, expected, strict=True):
            _assert_like(one, other)
    elif isinstance(expected, float):
        assert record == pytest.approx(expected, rel=1e-3, abs=2e-3)
    else:
        assert record == expected


def test_each_image_has_its_own_class_in_any_batches(lens: Lens, files: list[str]) -> None:
    whole = lens.inspect(files, ["cat", 5, "ship"], [0, 0, "airplane"], batch_size=2).record
    for number, target in enumerate(("cat", "dog", "ship")):
        image = whole["images"][number]
        alone = lens.inspect(files[number], target, 0).record["images"][0]
        assert image["target"] == {"index": alone["target"]["index"], "name": target, "chosen": "given"}
        assert image["against"] == {"index": 0, "name": "airplane"}
        _assert_like(image, alone)


def test_against_the_prediction(lens: Lens, files: list[str]) -> None:
    predicted = lens.trace(files).predictions.values.tolist()
    others = [(index + 1) % 10 for index in predicted]
    for image, target, rival in zip(
        lens.inspect(files, others, "predicted").record["images"], others, predicted, strict=True
    ):
        assert (image["target"]["index"], image["against"]["index"]) == (target, rival)


def test_edits_are_those_of_the_lens(lens: Lens) -> None:
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with lens.edit(classlens.AblateHeads([0, 1], blocks=[5])):
        edited, logits = lens.inspect(pixels, 3).record["images"][0], lens.trace(pixels).model_logits
    assert edited["attribution"]["logit"] == pytest.approx(float(logits[0, 3]), abs=1e-5)
    assert edited["attribution"]["logit"] != lens.inspect(pixels, 3).record["images"][0]["attribution"]["logit"]


def test_refusals(lens: Lens, files: list[str], tmp_path: Path) -> None:
    for target, against, words in (
        ("cat", "cat", "'cat'"),
        (["cat", "dog", "ship"], [0, 5, 1], "'dog'"),
        ("predicted", "predicted", "'predicted'"),
    ):
        with pytest.raises(ClasslensError, match=f"^target and against are both {words}: give another class$"):
            lens.inspect(files, target, against)
    with pytest.raises(ClasslensError, match="2 target classes were given for 3 images"):
        lens.inspect(files, ["cat", "dog"])
    with pytest.raises(ClasslensError, match=r"no class|unknown|class 'yak'"):
        lens.inspect(files, against="yak")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ClasslensError, match="holds other files"):
        lens.inspect(files[:1]).write(tmp_path)
    assert os.listdir(tmp_path) == ["mine.txt"]
