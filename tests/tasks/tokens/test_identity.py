"""A store and a later run on other images, labels or class names: refused in words, or measured anew, never mixed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from PIL import Image
from typer.testing import CliRunner

import classlens
from classlens import Dataset, Lens, evaluate, measure
from classlens.cli import app
from classlens.data.open_dataset import open_dataset
from classlens.engine.model_source import ModelSource
from classlens.engine.session import RunOptions, Session
from classlens.models.transforms import paper_transform
from classlens.store.open_store import open_group
from tests import zoo
from tests.data.pictures import assert_same, folder
from tests.refusals import refused
from tests.tasks.tiny import DATA_CLASSES, LOCAL, NAMES

IMAGES = 70


def lens(names: Sequence[str] = NAMES) -> Lens:
    return classlens.load(zoo.build("cls"), class_names=list(names), transform=paper_transform((16, 16)))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images and the store of two conditions."""
    root = tmp_path_factory.mktemp("first")
    data = folder(root / "images", IMAGES, DATA_CLASSES)
    measure(lens(), data, root / "run.zarr", conditions=("clean", "no_cls"), **LOCAL)
    return root


@pytest.fixture
def root(first: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first, tmp_path / "root"))


def rerun(root: Path, **changes: Any) -> classlens.MeasureResult:
    given: dict[str, Any] = {"conditions": ("clean", "no_cls"), **LOCAL, **changes}
    model, data = given.pop("model", None) or lens(), given.pop("data", f"folder:{root}/images")
    return measure(model, data, root / "run.zarr", **given)


def interrupted(root: Path) -> None:
    """As a run leaves it that was stopped after its first shard."""
    (root / "run.zarr/clean/measured/c/1").unlink()


@pytest.mark.parametrize("half", [False, True])
def test_other_class_names(root: Path, half: bool) -> None:
    if half:
        interrupted(root)
    corrected = lens([*NAMES[:7], "newt", *NAMES[8:]])
    refused(
        lambda: rerun(root, model=corrected),
        "begun with other names of the classes, or in another order",
        f"class 7 was {NAMES[7]!r}, and is 'newt'",
        "give the same to resume, or another --out",
    )


@pytest.mark.parametrize("half", [False, True])
def test_other_labels(root: Path, half: bool) -> None:
    if half:
        interrupted(root)
    dataset = open_dataset(f"folder:{root}/images")
    labels = dataset.labels.copy()
    labels[5] = (labels[5] + 1) % 3
    other = Dataset.whole(dataset.spec, None, dataset.names, labels, dataset.classes, dataset.source)
    was, now = (dataset.classes[chosen[5]].name for chosen in (dataset.labels, labels))
    refused(lambda: rerun(root, data=other), "other labels", f"{dataset.names[5]!r} was {was!r}, and is {now!r}")


def test_other_names_of_images(root: Path) -> None:
    (root / "images/cat/0003.png").rename(root / "images/cat/0001.png")
    refused(lambda: rerun(root), "images of other names", "'cat/0003.png' is gone, and 'cat/0001.png' is new")


def replace_image(root: Path, name: str = "cat/0003.png") -> None:
    """Another picture in a file of the same size."""
    path = root / "images" / name
    size = path.stat().st_size
    for number in range(1000):
        Image.new("RGB", (32, 32), (number % 256, 10, number // 256)).save(path)
        if path.stat().st_size <= size:
            path.write_bytes(path.read_bytes() + bytes(size - path.stat().st_size))
            return


def test_another_image_in_the_same_file_is_measured_anew(root: Path) -> None:
    before = open_group(root / "run.zarr", "clean").load()
    replace_image(root)
    result = rerun(root)
    assert result.note == "1 images changed since they were measured: their shards are measured anew"
    assert result.before == IMAGES - 64
    measure(lens(), f"folder:{root}/images", root / "fresh.zarr", conditions=("clean", "no_cls"), **LOCAL)
    for group in ("clean", "no_cls"):
        runs = [open_group(root / name, group).load() for name in ("run.zarr", "fresh.zarr")]
        xr.testing.assert_equal(*runs)
    row = before["image"].values.tolist().index("cat/0003.png")
    after = open_group(root / "run.zarr", "clean").load()
    assert not np.array_equal(after["logit"].values[row], before["logit"].values[row])
    assert rerun(root).note == ""


def test_another_image_does_not_stay_under_other_conditions(root: Path) -> None:
    replace_image(root)
    rerun(root, conditions="clean")
    assert open_group(root / "run.zarr", "no_cls")["measured"].values.tolist() == [0] * 64 + [1] * 6
    assert rerun(root).before == 70 - 64


def test_damage_is_measured_anew_with_the_same_bits(root: Path, first: Path) -> None:
    run = root / "run.zarr"
    (run / "clean/rank/c/1/0/0/0").unlink()
    for name in ("no_cls/logit/c/0/0/0/0", "clean/image/c/0", "clean/measured/c/0"):
        data = (run / name).read_bytes()
        (run / name).write_bytes(data[: len(data) // 2])
    command = CliRunner().invoke(app, ["check-store", str(run)])
    assert command.exit_code == 1
    assert "clean/rank: 1 damaged files" in command.output
    assert "c/1/0/0/0: the command that wrote it measures images 64 to 127 anew" in command.output
    result = rerun(root)
    assert result.note == "4 damaged files were found: their shards are measured anew"
    assert_same(run, first / "run.zarr")
    command = CliRunner().invoke(app, ["check-store", str(run)])
    assert (command.exit_code, command.output) == (0, f"{run}: no damage\n")
    command = CliRunner().invoke(app, ["check-store", str(root / "images")])
    assert command.exit_code == 2


def test_evaluations_keep_images_apart_as_well(root: Path) -> None:
    options: dict[str, Any] = {"methods": ["random"], "metrics": ["removal"], "per_class": 2, **LOCAL}
    data, out = f"folder:{root}/images", root / "evaluation"
    evaluate(lens(), data, out, **options)
    replace_image(root, "cat/0000.png")
    assert "1 images changed" in evaluate(lens(), data, out, **options).run.note
    evaluate(lens(), data, root / "fresh", **options)
    assert_same(out / "evaluation.zarr", root / "fresh/evaluation.zarr")
    corrected = lens([*NAMES[:7], "newt", *NAMES[8:]])
    refused(lambda: evaluate(corrected, data, out, **options), "other names of the classes")


def test_training_is_of_the_same_images(root: Path) -> None:
    def settings() -> dict[str, Any]:
        data = open_dataset(f"folder:{root}/images")
        return Session(ModelSource(lens(), {}), data, RunOptions()).training_settings()

    before = settings()
    assert settings() == before
    replace_image(root)
    assert {key for key, value in settings().items() if value != before[key]} == {"content"}
