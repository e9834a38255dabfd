"""A layout that is added by one record: it opens, and help text and error message list it at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from classlens.cli import app
from classlens.data.dataset import ClassName, Dataset, ImageFiles
from classlens.data.layout import Layout
from classlens.data.open_dataset import open_dataset
from classlens.data.registry import LAYOUTS
from tests.data.pictures import folder
from tests.refusals import refused


def read_pairs(spec: str, root: str, split: str | None) -> Dataset:
    """Files ``CLASS_NUMBER.png`` in one folder."""
    files = sorted(path.name for path in Path(root).glob("*_*.png"))
    names = sorted({file.partition("_")[0] for file in files})
    labels = [names.index(file.partition("_")[0]) for file in files]
    classes = [ClassName(name) for name in names]
    return Dataset.whole(spec, split, files, labels, classes, ImageFiles(Path(root), tuple(files)))


@pytest.fixture
def pairs(tmp_path: Path) -> Iterator[str]:
    """``pairs:ROOT``, a layout that is registered for one test."""
    folder(tmp_path / "folders", 6, ["cat", "dog"])
    for path in (tmp_path / "folders").rglob("*.png"):
        path.rename(tmp_path / f"{path.parent.name}_{path.name}")
    LAYOUTS.register("pairs", Layout("Pairs", "ROOT", "class and number in the name of a file", read_pairs))
    yield f"pairs:{tmp_path}"
    LAYOUTS.unregister("pairs")


def test_a_registered_layout_opens(pairs: str) -> None:
    data = open_dataset(pairs, per_class=2)
    assert data.names == ("cat_0000.png", "cat_0002.png", "dog_0001.png", "dog_0003.png")
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert np.asarray(data.picture(0)).shape == (32, 32, 3)


@pytest.mark.usefixtures("pairs")
def test_errors_and_help_list_a_registered_layout() -> None:
    refused(lambda: open_dataset("qqqq:x"), "pairs:")
    refused(lambda: open_dataset("pair:x"), "did you mean 'pairs:ROOT'")
    for command in ("measure", "evaluate", "tune"):
        result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
        assert result.exit_code == 0
        assert ", pairs" in result.stdout, command


def test_every_record_is_complete() -> None:
    for name, layout in LAYOUTS.items():
        assert layout.label, name
        assert layout.place.isupper(), name
        assert layout.about, name
        assert not layout.about.endswith("."), name


def test_the_command_line_measures_a_registered_layout(pairs: str, tmp_path: Path) -> None:
    arguments = ["measure", "--model", "builtin:cifar10", "--data", pairs, "--out", str(tmp_path / "run.zarr")]
    result = CliRunner().invoke(app, [*arguments, "--limit", "2", "--sites", "embed"])
    assert result.exit_code == 0, result.output
    assert "Measured 2 images" in result.stdout
