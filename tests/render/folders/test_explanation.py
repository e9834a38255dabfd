"""What explanations are laid over, and how they are titled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import classlens
from classlens.explain.method import Method
from classlens.explain.registry import METHODS
from classlens.render.folders import explanation
from classlens.render.folders.explanation import write_explanations
from tests.data.pictures import picture


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


def test_small_maps_keep_their_digits(tmp_path: Path) -> None:
    module = classlens.load("builtin:cifar10").view.module
    with torch.no_grad():
        module.head.weight.mul_(1e-8)
    trace = classlens.load(module).trace(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    (record,) = write_explanations(trace, 3, ["class_gradient"], tmp_path, loss="logit")
    expected = trace.map(3, loss="logit", method="class_gradient").values[0]
    assert 1e-10 < np.abs(expected).max() < 1e-6
    # Six digits.
    np.testing.assert_allclose(record["maps"]["class_gradient"], expected, rtol=5e-6)
    assert len(str(max(record["maps"]["class_gradient"][0]))) < 13


def test_options_are_in_the_record_and_in_titles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(explanation, "save", lambda figure, path: figures.append(figure))
    trace = classlens.load("builtin:cifar10").trace(torch.zeros(1, 3, 32, 32))
    methods = ["class_gradient", "rollout"]
    for options in ({"loss": "double_softmax", "query": (1, 2)}, {"loss": "logit", "against": "dog"}, {}):
        (record,) = write_explanations(trace, "cat", methods, tmp_path, **options)
        loss = options.get("loss", "cross_entropy")
        assert record["options"]["class_gradient"] == {**options, "loss": loss}
        assert record["options"]["rollout"] == {k: v for k, v in options.items() if k == "query"}
        assert (record["target"], record["target_index"]) == ("cat", 3)
    titles = [[axes.get_title().replace("\n", " ") for axes in figure.axes if axes.get_title()] for figure in figures]
    # Of one method, what the title does not say.
    write_explanations(trace, "cat", ["class_gradient:against=dog", "chefer", "grad_cam:block=2"], tmp_path)
    last_titles = [axes.get_title().replace("\n", " ") for axes in figures[-1].axes if axes.get_title()]
    assert last_titles[1:] == ["class gradient: rather than dog", "Chefer", "Grad-CAM, block 2"]
    assert titles[0][1:] == ["class gradient, loss double softmax, query (1, 2)", "rollout, query (1, 2)"]
    assert titles[1][1:] == titles[2][1:] == ["class gradient", "rollout"]


def test_titles_name_both_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(explanation, "save", lambda figure, path: figures.append(figure))
    picture(0).save(tmp_path / "photo.png")
    trace = classlens.load("builtin:cifar10").trace(tmp_path / "photo.png")
    alone = Method(lambda recording, target: METHODS["random"].run(recording, target), ("image", "token"), "mine", "")
    METHODS.register("mine", alone)
    try:
        methods = ["class_gradient", "mine", "rollout"]
        (record,) = write_explanations(trace, "cat", methods, tmp_path, against="dog")
        (plain,) = write_explanations(trace, "cat", methods, tmp_path)
    finally:
        METHODS.unregister("mine")
    assert [figure.get_suptitle() for figure in figures] == ["cat rather than dog in photo.png", "cat in photo.png"]
    titles = [[axes.get_title() for axes in figure.axes if axes.get_title()] for figure in figures]
    assert titles[0] == ["image", "class gradient", "mine: cat alone", "rollout"]
    assert titles[1] == ["image", "class gradient", "mine", "rollout"]
    assert record["against"] == "dog"
    assert "against" not in plain
