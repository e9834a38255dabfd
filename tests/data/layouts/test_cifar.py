"""CIFAR as published binary files, as torchvision's files, and as folders of images."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from classlens.core.arrays import Array
from classlens.data.open_dataset import open_dataset
from tests.refusals import refused

NAMES = {"cifar10": ["airplane", "automobile", "bird"], "cifar100": ["apple", "aquarium_fish", "baby"]}
BINARY = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}
TRAIN = {"cifar10": [f"data_batch_{number}" for number in range(1, 6)], "cifar100": ["train"]}
TEST = {"cifar10": "test_batch", "cifar100": "test"}


def pictures(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def rows(images: Array, kind: str, labels: list[int]) -> bytes:
    """The literal format: labels (for CIFAR-100 a coarse one first), 1024 red, 1024 green, 1024 blue bytes."""
    encoded = b""
    for image, label in zip(images, labels, strict=True):
        encoded += bytes([7, label] if kind == "cifar100" else [label])
        for color in range(3):
            for row in range(32):
                encoded += bytes(image[row, column, color] for column in range(32))
    return encoded


def binary(root: Path, kind: str) -> Path:
    folder = root / BINARY[kind]
    folder.mkdir()
    (folder / f"{TEST[kind]}.bin").write_bytes(rows(pictures(3), kind, [2, 0, 1]))
    for number, name in enumerate(TRAIN[kind]):
        (folder / f"{name}.bin").write_bytes(rows(pictures(2, number + 1), kind, [number % 3, 1]))
    names = "batches.meta.txt" if kind == "cifar10" else "fine_label_names.txt"
    (folder / names).write_text("\n".join(NAMES[kind]) + "\n\n")
    return folder


@pytest.fixture(params=["cifar10", "cifar100"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_published_binary_files(kind: str, tmp_path: Path) -> None:
    folder = binary(tmp_path, kind)
    for root in (tmp_path, folder):
        data = open_dataset(f"{kind}:{root}")
        assert data.split == "test"
        assert data.names == ("test/00000", "test/00001", "test/00002")
        assert data.labels.tolist() == [2, 0, 1]
        assert [category.name for category in data.classes] == NAMES[kind]
        for index, expected in enumerate(pictures(3)):
            np.testing.assert_array_equal(np.asarray(data.picture(index)), expected)
        assert data.picture(0).mode == "RGB"
        assert not data.has_masks
        assert data.mask(0) is None


def test_training_images_of_all_files_in_order(kind: str, tmp_path: Path) -> None:
    binary(tmp_path, kind)
    data = open_dataset(f"{kind}:{tmp_path}", split="train")
    assert len(data) == 2 * len(TRAIN[kind])
    assert data.names[-1] == f"train/{len(data) - 1:05}"
    for number in range(len(TRAIN[kind])):
        np.testing.assert_array_equal(np.asarray(data.picture(2 * number + 1)), pictures(2, number + 1)[1])
        assert data.labels[2 * number] == number % 3


def pickled(root: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pickled files as published, with their digests registered in torchvision."""
    library: Any = datasets.CIFAR10 if kind == "cifar10" else datasets.CIFAR100
    folder = root / str(library.base_folder)
    folder.mkdir()
    label = "labels" if kind == "cifar10" else "fine_labels"

    def entry(name: str, seed: int, labels: list[int]) -> list[str]:
        data = pictures(len(labels), seed).transpose(0, 3, 1, 2).reshape(len(labels), -1)
        content = pickle.dumps({"data": data, label: labels})
        (folder / name).write_bytes(content)
        return [name, hashlib.md5(content).hexdigest()]

    train = [entry(name, number + 1, [1, 2]) for number, name in enumerate(TRAIN[kind])]
    monkeypatch.setattr(library, "train_list", train)
    monkeypatch.setattr(library, "test_list", [entry(TEST[kind], 0, [2, 0, 1])])
    meta = pickle.dumps({library.meta["key"]: NAMES[kind]})
    (folder / library.meta["filename"]).write_bytes(meta)
    monkeypatch.setattr(library, "meta", {**library.meta, "md5": hashlib.md5(meta).hexdigest()})
    return folder


def test_torchvisions_files(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pickled(tmp_path, kind, monkeypatch)
    for root in (tmp_path, folder):
        data = open_dataset(f"{kind}:{root}")
        assert data.names == ("test/00000", "test/00001", "test/00002")
        assert data.labels.tolist() == [2, 0, 1]
        assert [category.name for category in data.classes] == NAMES[kind]
        for index, expected in enumerate(pictures(3)):
            np.testing.assert_array_equal(np.asarray(data.picture(index)), expected)
    train = open_dataset(f"{kind}:{tmp_path}", split="train")
    assert len(train) == 2 * len(TRAIN[kind])
    np.testing.assert_array_equal(np.asarray(train.picture(0)), pictures(2, 1)[0])


def test_both_layouts_are_the_same_data(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    binary(tmp_path / "first", kind)
    pickled(tmp_path / "second", kind, monkeypatch)
    first, second = (open_dataset(f"{kind}:{tmp_path / name}") for name in ("first", "second"))
    assert first.content_digest == second.content_digest


def test_unpublished_pickled_files_are_never_opened(kind: str, tmp_path: Path) -> None:
    library: Any = datasets.CIFAR10 if kind == "cifar10" else datasets.CIFAR100
    folder = tmp_path / str(library.base_folder)
    folder.mkdir()
    opened = tmp_path / "opened"

    class Harmful:
        def __reduce__(self) -> Any:
            return Path.touch, (opened,)

    for name in (*TRAIN[kind], TEST[kind], library.meta["filename"]):
        (folder / name).write_bytes(pickle.dumps(Harmful()))
    refused(lambda: open_dataset(f"{kind}:{tmp_path}"), repr(f"{kind}:{tmp_path}"), "not the published ones")
    assert not opened.exists()


def test_folders_of_images(kind: str, tmp_path: Path) -> None:
    for split, name in (("test", "cat"), ("test", "ant"), ("train", "cat")):
        path = tmp_path / split / name / "1.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(pictures(1)[0]).save(path)
    data = open_dataset(f"{kind}:{tmp_path}")
    assert data.names == ("ant/1.png", "cat/1.png")
    assert [category.name for category in data.classes] == ["ant", "cat"]
    assert open_dataset(f"{kind}:{tmp_path}", split="train").names == ("cat/1.png",)


def test_a_root_without_data(kind: str, tmp_path: Path) -> None:
    refused(lambda: open_dataset(f"{kind}:{tmp_path}"), repr(f"{kind}:{tmp_path}"), BINARY[kind])
    refused(lambda: open_dataset(f"{kind}:{tmp_path}/none"), "is not a folder")
    refused(lambda: open_dataset(f"{kind}:{tmp_path}", split="validation"), "'validation'", "train or test")


def test_a_training_file_is_missing(tmp_path: Path) -> None:
    folder = binary(tmp_path, "cifar10")
    (folder / "data_batch_3.bin").unlink()
    refused(lambda: open_dataset(f"cifar10:{tmp_path}", split="train"), str(tmp_path))


@pytest.mark.parametrize("cut", [0, 1, 3072, 5000])
def test_a_file_cut_short(kind: str, cut: int, tmp_path: Path) -> None:
    path = binary(tmp_path, kind) / f"{TEST[kind]}.bin"
    path.write_bytes(path.read_bytes()[:cut])
    refused(lambda: open_dataset(f"{kind}:{tmp_path}"), str(tmp_path), path.name, f"{cut} bytes")


def test_names_that_do_not_fit_the_images(kind: str, tmp_path: Path) -> None:
    names = binary(tmp_path, kind) / ("batches.meta.txt" if kind == "cifar10" else "fine_label_names.txt")
    names.write_text("one\ntwo\n")
    refused(lambda: open_dataset(f"{kind}:{tmp_path}"), str(tmp_path), "class 2", "2 names")
    names.write_bytes(bytes(range(256)))
    refused(lambda: open_dataset(f"{kind}:{tmp_path}"), repr(str(names)), "cannot be read")
    names.unlink()
    refused(lambda: open_dataset(f"{kind}:{tmp_path}"), str(tmp_path), names.name)


def test_the_fingerprint_depends_on_pixels_and_survives_pickling(kind: str, tmp_path: Path) -> None:
    path = binary(tmp_path, kind) / f"{TEST[kind]}.bin"
    before = open_dataset(f"{kind}:{tmp_path}")
    copy = pickle.loads(pickle.dumps(before))
    np.testing.assert_array_equal(np.asarray(copy.picture(1)), np.asarray(before.picture(1)))
    assert copy.content_digest == before.content_digest
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(bytes(content))
    assert open_dataset(f"{kind}:{tmp_path}").content_digest != before.content_digest
