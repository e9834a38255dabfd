"""Masks of one's own in whole runs: what a condition keeps, which images are left out, and what a store remembers."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import classlens
from classlens import Lens, evaluate, measure, probe
from classlens.analysis.paper import reproduce
from classlens.cli import app
from classlens.core.arrays import Array
from classlens.core.stats import Statistics
from classlens.data.open_dataset import open_dataset
from classlens.forward.edits.keep_tokens import KeepTokens
from classlens.models.transforms import paper_transform
from classlens.store.open_store import open_group
from tests import zoo
from tests.data.pictures import assert_same, folder
from tests.refusals import refused
from tests.tasks.tiny import DATA_CLASSES, LOCAL, NAMES

OBJECT, BACKGROUND, BORDER = 1, 2, 3
VALUES = "object=1 ignore=3"
CONDITIONS = ("clean", "context_removed", "class_removed")
# Quarters of an image, which are the tokens of a model with a grid of 2 × 2.
QUARTERS = {
    "cat/0000": (OBJECT, BACKGROUND, BORDER, BACKGROUND),
    "cat/0003": (OBJECT, OBJECT, BORDER, BORDER),
    "dog/0001": (BACKGROUND, BACKGROUND, BACKGROUND, OBJECT),
    "dog/0004": (BACKGROUND, BACKGROUND, BACKGROUND, BACKGROUND),
    "frog/0002": (OBJECT, BORDER, OBJECT, BACKGROUND),
}


def mask_of(quarters: tuple[int, int, int, int]) -> Array:
    return np.array(quarters, dtype=np.uint8).reshape(2, 2).repeat(16, axis=0).repeat(16, axis=1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five images; the mask of dog/0004 shows no object, frog/0005 is an image without a mask."""
    folder(tmp_path / "images", 6, DATA_CLASSES)
    for name, quarters in QUARTERS.items():
        path = tmp_path / "masks" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask_of(quarters)).save(path)
    return tmp_path


@cache
def lens() -> Lens:
    return classlens.load(zoo.build("cls"), class_names=list(NAMES), transform=paper_transform((16, 16)))


def complete(root: Path) -> None:
    Image.fromarray(mask_of((OBJECT, BACKGROUND, BACKGROUND, BACKGROUND))).save(root / "masks/dog/0004.png")
    Image.fromarray(mask_of((BORDER, BACKGROUND, OBJECT, BACKGROUND))).save(root / "masks/frog/0005.png")


def run(root: Path, out: str = "run.zarr", masks: str = "masks", values: str = VALUES) -> classlens.MeasureResult:
    data = f"folder:{root / 'images'}"
    given: dict[str, Any] = {"masks": root / masks, "mask_values": values, "conditions": CONDITIONS, "skip_bad": True}
    return measure(lens(), data, root / out, **given, **LOCAL)


def test_images_without_a_mask_that_fits(root: Path) -> None:
    """Unless they are skipped they stop the run; then only what needs masks leaves them out, and tells why."""
    data = f"folder:{root / 'images'}"
    given: dict[str, Any] = {"masks": root / "masks", "mask_values": VALUES, **LOCAL}
    says = ("1 of 6 images have no mask", "'frog/0005.png'", "--skip-bad")
    refused(lambda: measure(lens(), data, root / "run.zarr", **given), *says)
    assert not (root / "run.zarr").exists()
    Image.fromarray(mask_of((OBJECT, OBJECT, OBJECT, OBJECT))).save(root / "masks/frog/0005.png")
    refused(
        lambda: measure(lens(), data, root / "stopped.zarr", batch_size=1, **given),
        "dog/0004.png' shows no object",
        "goes on without this mask",
    )
    assert open_group(root / "stopped.zarr", "clean")["measured"].values.tolist() == [1, 1, 1, 0, 0, 0]
    (root / "masks/frog/0005.png").unlink()
    result = run(root)
    assert sorted(result.skipped) == ["dog/0004.png", "frog/0005.png"]
    assert "no object" in result.skipped["dog/0004.png"]
    assert "does not exist" in result.skipped["frog/0005.png"]
    assert (result.images, result.unmasked) == (6, 2)
    clean = open_group(root / "run.zarr", "clean").load()
    assert (clean["measured"] == 1).all()
    assert (clean["rank"] >= 0).all()
    measure(lens(), data, root / "plain.zarr", **LOCAL)
    np.testing.assert_array_equal(clean["logit"], open_group(root / "plain.zarr", "clean")["logit"])
    for name in CONDITIONS[1:]:
        edited = open_group(root / "run.zarr", name).load()
        assert edited["measured"].values.tolist() == [1, 1, 1, 2, 1, 2]
        assert (edited["rank"].values[[3, 5]] == -1).all()
        assert (edited["prediction"].values[[3, 5]] == -1).all()
        assert [bool(text) for text in edited["problem"].values] == [False, False, False, True, False, True]


def test_tokens_that_the_mask_leaves_open(root: Path) -> None:
    """They are neither of the class nor of its context, so both conditions drop them."""
    run(root)
    clean, of_class, of_context = (open_group(root / "run.zarr", name).load() for name in CONDITIONS)
    meaning = {OBJECT: 1, BACKGROUND: 0, BORDER: -1}
    images = [f"{name}.png" for name in QUARTERS if name != "dog/0004"]
    assert [str(name) for name in clean["image"].values[[0, 1, 2, 4]]] == images
    for image, name in zip((0, 1, 2, 4), images, strict=True):
        tokens = [meaning[value] for value in QUARTERS[name.removesuffix(".png")]]
        assert clean["class_token"].values[image].tolist() == [-1, *tokens]
        for found, flag in ((of_class, 1), (of_context, 0)):
            kept = [True, *(token == flag for token in tokens)]
            assert found["kept"].values[image].tolist() == kept
            pixels = lens().preprocessing(open_dataset(f"folder:{root / 'images'}").picture(image), "")[None]
            with lens().edit(KeepTokens(torch.tensor(kept))):
                assert found["prediction"].values[image] == lens().trace(pixels).recording.logits.argmax()


def test_a_store_keeps_its_masks(root: Path) -> None:
    complete(root)
    run(root)
    path = root / "run.zarr"
    refused(lambda: run(root, values="object=1,3"), "mask values 'object=1 ignore=3', not 'object=1,3'")
    data = f"folder:{root / 'images'}"
    refused(lambda: measure(lens(), data, path, **LOCAL), "begun with other masks, or none")
    (root / "masks").rename(root / "moved")
    assert run(root, masks="moved").before == 6
    run(root, "again.zarr", masks="moved")
    assert_same(path, root / "again.zarr")
    Image.fromarray(mask_of((OBJECT, OBJECT, BACKGROUND, OBJECT))).save(root / "moved/cat/0000.png")
    refused(lambda: run(root, masks="moved"), "begun with other masks, or none")
    measure(lens(), data, root / "plain.zarr", **LOCAL)
    refused(lambda: run(root, "plain.zarr", masks="moved"), "begun with other masks, or none")
    opened = open_dataset(data, masks=root / "moved", mask_values=VALUES)
    refused(lambda: measure(lens(), opened, root / "new.zarr", masks=root / "moved"), "give it to open_dataset")


def test_segmentation_of_images_with_masks(root: Path) -> None:
    """Pixels that count, by a loop over those of the masks; images without a mask that fits do not count."""
    data = f"folder:{root / 'images'}"
    given: dict[str, Any] = {"methods": ["random"], "masks": root / "masks", "mask_values": VALUES, **LOCAL}
    refused(lambda: evaluate(lens(), data, root / "out", metrics=["segmentation"], **given), "1 of 6 images")
    result = evaluate(lens(), data, root / "out", metrics=["segmentation"], skip_bad=True, **given)
    assert sorted(result.run.skipped) == ["dog/0004.png", "frog/0005.png"]
    store = open_group(root / "out/evaluation.zarr", "segmentation.random").load()
    expected = []
    for name, quarters in QUARTERS.items():
        pixels = [quarters[2 * (i // 8) + j // 8] for i in range(16) for j in range(16)]
        expected.append(-1 if name == "dog/0004" else sum(value != BORDER for value in pixels))
    assert store["pixels"].values.tolist() == [*expected, -1]
    assert store["measured"].values.tolist() == [1, 1, 1, 2, 1, 2]
    assert result.scores["images"].unique().tolist() == [4]


def test_probes_take_masks_of_the_test_images(root: Path) -> None:
    complete(root)
    folder(root / "train", 9, DATA_CLASSES)
    data, train = f"folder:{root / 'images'}", f"folder:{root / 'train'}"
    some: dict[str, Any] = {"sites": "resid_post", "tokens": "cls", "mask_values": VALUES, **LOCAL}
    probe(lens(), train, data, root / "probes", test_masks=root / "masks", **some)
    found = open_group(root / "probes/probes.zarr", "probe")["class_token"].values
    assert found[1].tolist() == [-1, 1, 1, -1, -1]
    refused(lambda: probe(lens(), train, data, root / "others", **some), "without masks")


@pytest.mark.slow
def test_the_paper_takes_masks(root: Path) -> None:
    complete(root)
    data, masks, models = f"folder:{root / 'images'}", root / "masks", ["builtin:cifar10"]
    quick: dict[str, Any] = {"statistics": Statistics(permutations=9, resamples=9), "per_class": 1, "workers": 0}
    given: dict[str, Any] = {"memories": False, "mask_values": VALUES, **quick}
    tables = reproduce([data], models, root / "stores", masks=[masks], **given).analysis.tables
    assert set(tables["context_removal"]["condition"]) == {"context_removed", "class_removed"}


def test_the_paper_takes_one_folder_of_masks_for_each_data_set(root: Path) -> None:
    data, masks, models = f"folder:{root / 'images'}", root / "masks", ["builtin:cifar10"]
    refused(lambda: reproduce([data, data], models, root, masks=[masks]), "1 folders of masks", "2 data sets")
    refused(lambda: reproduce([data], models, root, masks=[None], mask_values=VALUES), "without masks")
    refused(lambda: reproduce([data], models, root, masks=[root / "none"]), "are no folder")


def test_commands_take_masks(root: Path) -> None:
    some = ["--model", "builtin:cifar10", "--data", f"folder:{root / 'images'}", "--workers", "0", "--skip-bad"]
    masks = ["--masks", str(root / "masks"), "--mask-values", VALUES]
    words = ["measure", *some, *masks, "--out", str(root / "a.zarr"), "--sites", "resid_post", "--conditions", "clean"]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    assert "2 images were measured without a mask: what needs masks leaves them out." in result.stdout
    data, wrong = f"folder:{root / 'images'}", [str(root / "masks"), "--mask-values", "objet=1"]
    for words in (
        ["evaluate", "--model", "builtin:cifar10", "--data", data, "--masks", *wrong],
        ["paper", "--models", "builtin:cifar10", "--data", data, "--masks", *wrong],
        ["probe", "--model", "builtin:cifar10", "--train", data, "--test", data, "--test-masks", *wrong],
    ):
        result = CliRunner().invoke(app, [*words, "--out", str(root / words[0])])
        assert result.exit_code == 2
        assert "did you mean 'object'" in result.stderr
