"""What explanations are laid over, and how they are titled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import classlens
from classlens.present import explanation
from classlens.present.explanation import write_explanations
from tests.runs.data import picture


def test_pixels_alone_are_shown_as_the_model_sees_them(tmp_path: Path) -> None:
    trace = classlens.load("builtin:cifar10").trace(torch.zeros(2, 3, 32, 32))
    records = write_explanations(trace, "cat", ["random"], tmp_path)
    assert [record["resolution"] for record in records] == ["model", "model"]
    assert "frame" not in records[0]
    assert Image.open(tmp_path / "02-random.png").size == (448, 448)


def test_a_function_of_the_user_is_shown_as_the_model_sees_it(tmp_path: Path) -> None:
    def function(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.asarray(image.resize((32, 32)), dtype=np.float32) / 255).permute(2, 0, 1)

    photo = picture(0, (300, 270))
    trace = classlens.load("builtin:cifar10", transform=function).trace(photo)
    (record,) = write_explanations(trace, "cat", ["random"], tmp_path, photos=[photo])
    assert record["resolution"] == "model"
    assert Image.open(tmp_path / "01-random.png").size == (448, 448)


@pytest.mark.parametrize(
    ("size", "shown"),
    [((451, 300), (451, 300)), ((2500, 40), (2048, 33)), ((40, 2500), (33, 2048)), ((9, 8), (450, 400))],
)
def test_photos_keep_their_resolution_within_limits(
    size: tuple[int, int], shown: tuple[int, int], tmp_path: Path
) -> None:
    photo = picture(1, size)
    trace = classlens.load("builtin:cifar10").trace(photo)
    (record,) = write_explanations(trace, "cat", ["random"], tmp_path, photos=[photo])
    assert record["resolution"] == "photo"
    assert Image.open(tmp_path / "01-random.png").size == shown
    Image.open(tmp_path / "01-methods.png").load()


def test_titles_name_both_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(explanation, "save", lambda figure, path: figures.append(figure))
    picture(0).save(tmp_path / "photo.png")
    trace = classlens.load("builtin:cifar10").trace(tmp_path / "photo.png")
    methods = ["class_gradient", "chefer", "rollout"]
    (record,) = write_explanations(trace, "cat", methods, tmp_path, against="dog")
    (plain,) = write_explanations(trace, "cat", methods, tmp_path)
    assert [figure.get_suptitle() for figure in figures] == ["cat rather than dog in photo.png", "cat in photo.png"]
    titles = [[axes.get_title() for axes in figure.axes if axes.get_title()] for figure in figures]
    assert titles[0] == ["image", "class gradient", "chefer: cat alone", "rollout"]
    assert titles[1] == ["image", "class gradient", "chefer", "rollout"]
    assert record["against"] == "dog"
    assert "against" not in plain
