"""Evaluations of maps that other tools made: functions, files and arrays, at their own resolution."""

from __future__ import annotations

import os
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from classlens import EvaluateResult, Lens, Statistics, evaluate
from classlens.core.pixel_maps import cell_means
from classlens.data.open_dataset import open_dataset
from classlens.tasks.evaluation.importance import parse_methods
from classlens.tasks.evaluation.map_files import MapArray, MapFolder
from classlens.tasks.evaluation.map_importance import given_maps, parse_maps
from classlens.tasks.evaluation.metrics.masking import METRIC as MASKING
from tests import zoo
from tests.data.pictures import folder
from tests.refusals import refused
from tests.tasks.evaluation.batches import batch_of, lens_of, method_of
from tests.tasks.evaluation.runs import VARIANT, labels_of, pixels_of, tiny_lens

IMAGES = 8
SIZE, GRID = zoo.VARIANTS[VARIANT].size, zoo.VARIANTS[VARIANT].grid
SETTINGS: dict[str, Any] = {
    "metrics": ["removal", "masking"],
    "steps": "all",
    "workers": 0,
    "statistics": Statistics(resamples=100),
}
FILE = """
import torch

def gradient(model, pixels, target):
    pixels.requires_grad_()
    model(pixels).gather(1, target[:, None]).sum().backward()
    return {}pixels.grad
"""


def gradient_map(model: Any, pixels: Tensor, target: Tensor) -> Tensor:
    pixels = pixels.clone().requires_grad_()
    return torch.autograd.grad(model(pixels).gather(1, target[:, None]).sum(), pixels)[0]


@pytest.fixture(scope="module")
def lens() -> Lens:
    return tiny_lens()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return folder(tmp_path_factory.mktemp("maps") / "images", IMAGES)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tool.py"
    path.write_text(FILE.format(""))
    return path


@pytest.fixture(scope="module")
def stored(lens: Lens, data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gradient of each image, in files."""
    root, dataset = tmp_path_factory.mktemp("maps") / "stored", open_dataset(data)
    for image, (name, label) in enumerate(zip(dataset.names, labels_of(dataset, lens), strict=True)):
        values = gradient_map(lens.view.module.eval(), pixels_of(dataset, lens, image), torch.tensor([label]))[0]
        path = root / (f"{name}.npy" if image % 2 else os.path.splitext(name)[0] + ".npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, values.numpy() if image % 3 else values.sum(dim=0).numpy())
    return root


def scores_of(result: EvaluateResult, method: str) -> pd.DataFrame:
    scores = result.scores[result.scores["method"] == method].drop(columns="method")
    assert len(scores) == 6
    return scores[["metric", "measure", "value", "low", "high", "images"]].reset_index(drop=True)


def test_functions_files_and_arrays_give_the_same(
    lens: Lens, data: str, file: Path, stored: Path, tmp_path: Path
) -> None:
    dataset = open_dataset(data)
    labels = torch.tensor(labels_of(dataset, lens))
    pixels = torch.cat([pixels_of(dataset, lens, image) for image in range(IMAGES)])
    maps = gradient_map(lens.view.module.eval(), pixels, labels)
    result = evaluate(
        lens,
        data,
        tmp_path / "out",
        methods=[f"{file}:gradient", f"{file}:gradient:sign=absolute", gradient_map, "rollout"],
        maps={"stored": stored, "array": maps.numpy(), "absolute:sign=absolute": maps.sum(dim=1)},
        **SETTINGS,
    )
    expected = scores_of(result, "gradient")
    for name in ("gradient_map", "stored", "array"):
        pd.testing.assert_frame_equal(scores_of(result, name), expected)
    signed = scores_of(result, "gradient:sign=absolute")
    pd.testing.assert_frame_equal(scores_of(result, "absolute:sign=absolute"), signed)
    assert not signed["value"].equals(expected["value"])
    assert not scores_of(result, "rollout")["value"].equals(expected["value"])
    # Maps of files are no methods that could be asked again.
    again = evaluate(lens, data, tmp_path / "out", methods=[], maps={"stored": stored}, **SETTINGS)
    assert again.run.seconds < result.run.seconds
    pd.testing.assert_frame_equal(scores_of(again, "stored"), expected)


def test_pixels_are_masked_by_the_map_at_its_own_resolution(file: Path) -> None:
    lens, pixels, target = lens_of(VARIANT), zoo.pixels(VARIANT), zoo.targets()
    (importance,) = parse_methods([f"{file}:gradient"])
    expected = gradient_map(lens.view.module.eval(), pixels, target).sum(dim=1)
    batch = batch_of(lens, pixels, target)
    torch.testing.assert_close(batch.pixel_maps(importance), expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(batch.maps(importance), cell_means(expected, GRID), rtol=0, atol=1e-14)
    # Sorted by hand: half of the pixels of the first image, the most important first.
    order = sorted(range(SIZE[0] * SIZE[1]), key=lambda pixel: -float(expected[0].flatten()[pixel]))
    masked = pixels[:1].clone().flatten(2)
    masked[:, :, order[: len(order) // 2]] = pixels[:1].mean(dim=(2, 3))[..., None]
    target = lens.view.module(masked.view_as(pixels[:1])).argmax(dim=1)
    one = batch_of(lens, pixels[:1], target)
    one._native[importance.text] = list(expected[:1])
    assert MASKING.measure(one, importance)["correct"][0, 1, 5] == 1
    one.target = (target + 1) % zoo.CLASSES
    assert MASKING.measure(one, importance)["correct"][0, 1, 5] == 0


def test_stored_maps_of_any_resolution() -> None:
    lens, pixels = lens_of(VARIANT), zoo.pixels(VARIANT, 2)
    values = torch.randn(4, 9, 5, dtype=torch.float64)
    (given,) = given_maps({"maps:sign=positive": values}, ["a", "b", "c", "d"], 3, skip_bad=False)
    assert (given.live, given.drawn, given.complete) == (False, False, False)
    batch = batch_of(lens, pixels, zoo.targets(2), first=2)
    positive = values[2:].clamp_min(0)
    torch.testing.assert_close(batch.maps(given), cell_means(positive, GRID))
    pickled = pickle.loads(pickle.dumps(given))
    assert pickled.digest == given.digest
    torch.testing.assert_close(batch_of(lens, pixels, zoo.targets(2), first=2).maps(pickled), batch.maps(given))


def test_functions_in_files_can_be_pickled(file: Path) -> None:
    importance = method_of(f"{file}:gradient:sign=absolute")
    again = pickle.loads(pickle.dumps(importance))
    assert (again.text, again.digest) == ("gradient:sign=absolute", importance.digest)


def test_changes_are_noticed(lens: Lens, data: str, file: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    for image, name in enumerate(open_dataset(data).names):
        (maps / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(maps / f"{name}.npy", np.random.default_rng(image).normal(size=(4, 4)))
    settings = {**SETTINGS, "metrics": ["masking"]}
    by_function = partial(evaluate, lens, data, tmp_path / "out", methods=[f"{file}:gradient"], **settings)
    by_files = partial(evaluate, lens, data, tmp_path / "out", methods=[], maps={"maps": maps}, **settings)
    by_function()
    by_files()
    by_function()
    by_files()
    file.write_text(FILE.format("-"))
    refused(by_function, "'masking.gradient' of other maps", "the same function or files")
    changed = maps / f"{open_dataset(data).names[5]}.npy"
    np.save(changed, np.zeros((4, 4)))
    refused(by_files, "'masking.maps' of other maps")


def test_a_file_that_changes_during_the_run(lens: Lens, file: Path) -> None:
    importance = method_of(f"{file}:gradient")
    assert importance.method.label == "gradient"
    file.write_text(FILE.format("-"))
    refused(lambda: importance.method, "the file of method 'gradient' has changed during the run")


def test_the_digest_of_a_folder_is_of_all_bytes(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(224, 224)).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    before = MapFolder(tmp_path, ("a.png",)).digest
    values[100] *= -1
    np.save(tmp_path / "a.npy", values)
    assert MapFolder(tmp_path, ("a.png",)).digest != before
    flat = np.ones((2, 4, 9))
    assert MapArray("maps", flat).digest != MapArray("maps", flat.reshape(2, 9, 4)).digest


def test_images_without_a_map_are_left_out(lens: Lens, data: str, tmp_path: Path) -> None:
    dataset, maps = open_dataset(data), tmp_path / "maps"
    for image, name in enumerate(dataset.names):
        (maps / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(maps / f"{name}.npy", np.random.default_rng(image).normal(size=(4, 4)))
    (maps / f"{dataset.names[1]}.npy").unlink()
    broken = maps / f"{dataset.names[6]}.npy"
    np.save(broken, np.full((4, 4), np.nan))
    settings = {**SETTINGS, "methods": [], "metrics": ["masking"]}
    out = tmp_path / "out"
    missing = f"map {str(maps / dataset.names[1].replace('.png', '.npy'))!r} does not exist"
    refused(lambda: evaluate(lens, data, out, maps={"maps": maps}, **settings), missing, "--skip-bad")
    assert not out.exists()
    result = evaluate(lens, data, out, maps={"maps": maps}, **settings, skip_bad=True)
    assert set(result.scores["images"]) == {IMAGES - 2}
    assert result.run.note == "2 without a map of maps"
    (maps / f"{dataset.names[1]}.npy").write_bytes(b"no map")
    refused(lambda: evaluate(lens, data, tmp_path / "other", maps={"maps": maps}, **settings), "cannot be read")


ARRAY = np.zeros((2, 4, 4))


@pytest.mark.parametrize(
    ("maps", "parts"),
    [
        ({"maps": "nowhere"}, ("'nowhere' is not a folder",)),
        ({"maps": ARRAY[:1]}, ("maps 'maps' are an array [1, 4, 4]", "of 2 images")),
        ({"maps": ARRAY[..., 0]}, ("an array [2, 4]",)),
        ({"maps": ARRAY[:, None].repeat(2, axis=1)}, ("map 0 of 'maps' is an array of float64 [2, 4, 4]", "[3, row")),
        ({"maps": ARRAY / 0}, ("map 0 of 'maps' has values that are not finite",)),
        ({"maps": ARRAY.astype("U1")}, ("map 0 of 'maps' is an array of <U1",)),
        ({"chefer": ARRAY}, ("'chefer' have the name of a method",)),
        ({"a map": ARRAY}, ("'a map' need a name of letters",)),
        ({"maps:sign=up": ARRAY}, ("sign 'up' is not known", "absolute")),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_wrong_maps(maps: dict[str, Any], parts: tuple[str, ...]) -> None:
    refused(lambda: given_maps(maps, ["a.png", "b.png"], 3, skip_bad=False), *parts)


def test_two_images_of_one_map(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 2)))
    both = ["a.png", "a.jpg"]
    refused(
        lambda: given_maps({"maps": tmp_path}, both, 3, skip_bad=True), "'a.png' and 'a.jpg' have one map", "a.jpg.npy"
    )
    refused(
        lambda: given_maps({"maps": tmp_path}, ["a.png", "a.png"], 3, skip_bad=True), "'a.png' and 'a.png' have one map"
    )


def test_notation_of_folders(tmp_path: Path) -> None:
    named = tmp_path / "lrp=1"
    named.mkdir()
    assert parse_maps(["lrp:sign=absolute=x/y=z", f"a={named}"]) == {"lrp:sign=absolute": "x/y=z", "a": str(named)}
    assert parse_maps([str(tmp_path / "saliency-maps")]) == {"saliency-maps": str(tmp_path / "saliency-maps")}
    refused(lambda: parse_maps(["a=x", "a=y"]), "'a' were given twice")
    refused(lambda: parse_maps([str(named)]), "'lrp=1' need a name of letters")


def test_names_of_one_run(lens: Lens, data: str, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(FILE.format(""))
    refused(lambda: parse_methods([f"{file}:gradient", f"{other}:gradient"]), "two methods are named 'gradient'")
    refused(lambda: parse_methods([f"{file}:gradient:sign=up"]), "sign 'up' is not known")
    refused(lambda: parse_methods([f"{file}:gradient:loss=logit"]), "'gradient' has no option 'loss'")
    maps = {"gradient": np.zeros((IMAGES, 2, 2))}
    run = partial(evaluate, lens, data, tmp_path / "out", **SETTINGS)
    refused(lambda: run(methods=[f"{file}:gradient"], maps=maps), "'gradient' have the name of a method of this run")
    refused(
        lambda: evaluate("builtin:cifar10", data, tmp_path / "out", methods=gradient_map, engine="ray"),
        "a function in Python was given to run on a cluster",
    )
