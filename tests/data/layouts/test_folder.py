"""Folders of images, one per class, and images without classes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classlens.data.dataset import ClassName, Dataset
from classlens.data.open_dataset import open_dataset
from tests.refusals import refused


def gray(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (3, 2), value).save(path)


def class_names(data: Dataset) -> list[str]:
    return [category.name for category in data.classes]


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    for value, name in enumerate(["b/2.png", "b/10.png", "a/x.png", "a/deep/er/y.PNG"]):
        gray(tmp_path / name, value)
    data = open_dataset(f"folder:{tmp_path}")
    assert data.names == ("a/deep/er/y.PNG", "a/x.png", "b/10.png", "b/2.png")
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert data.classes == (ClassName("a"), ClassName("b"))
    assert [np.asarray(data.picture(index))[0, 0].tolist() for index in range(4)] == [[v] * 3 for v in (3, 2, 1, 0)]
    assert data.picture(0).mode == "RGB"
    assert data.picture(0).size == (3, 2)
    assert not data.has_masks
    assert data.mask(0) is None


def test_other_files_are_ignored(tmp_path: Path) -> None:
    for name in ("a/x.png", "a/.hidden.png", "a/.thumbnails/x.png", ".git/x.png"):
        gray(tmp_path / name)
    (tmp_path / "a/readme.txt").write_text("no image")
    (tmp_path / "empty").mkdir()
    data = open_dataset(f"folder:{tmp_path}")
    assert data.names == ("a/x.png",)
    assert class_names(data) == ["a"]


def test_image_formats(tmp_path: Path) -> None:
    for suffix in ("png", "jpg", "JPEG", "bmp", "webp", "tiff", "gif"):
        gray(tmp_path / f"a/{suffix}.{suffix}")
    data = open_dataset(f"folder:{tmp_path}")
    assert len(data) == 7
    assert all(data.picture(index).size == (3, 2) for index in range(7))


def test_wordnet_ids(tmp_path: Path) -> None:
    for name in ("n02123045", "n2", "n021230450", "tabby"):
        gray(tmp_path / name / "x.png")
    assert {category.name: category.wnid for category in open_dataset(f"folder:{tmp_path}").classes} == {
        "n02123045": "n02123045",
        "n2": None,
        "n021230450": None,
        "tabby": None,
    }


@pytest.mark.parametrize("beside", [None, "empty", ".hidden"])
def test_images_without_folders_have_no_labels(beside: str | None, tmp_path: Path) -> None:
    gray(tmp_path / "b.png")
    gray(tmp_path / "a.png")
    if beside:
        (tmp_path / beside).mkdir()
    data = open_dataset(f"folder:{tmp_path}")
    assert data.names == ("a.png", "b.png")
    assert data.labels.tolist() == [-1, -1]
    assert data.classes == ()


def test_a_split_is_a_folder(tmp_path: Path) -> None:
    gray(tmp_path / "train/a/1.png")
    gray(tmp_path / "val/a/2.png")
    data = open_dataset(f"folder:{tmp_path}", split="val")
    assert data.names == ("a/2.png",)
    assert data.split == "val"
    assert data.picture(0).size == (3, 2)
    refused(
        lambda: open_dataset(f"folder:{tmp_path}", split="vall"), repr(f"folder:{tmp_path}"), "'vall'", "mean 'val'"
    )


def test_links_are_followed(tmp_path: Path) -> None:
    gray(tmp_path / "elsewhere/1.png")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/a").symlink_to(tmp_path / "elsewhere")
    assert open_dataset(f"folder:{tmp_path / 'root'}").names == ("a/1.png",)


def test_links_are_followed_once_and_never_upwards(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    for path in (root / "cat/1.png", root / "dog/2.png", root / "dog/z/3.png", elsewhere / "4.png"):
        gray(path)
    links = {
        root / "cat/up": root,
        root / "cat/top": tmp_path,
        root / "cat/itself": root / "cat",
        root / "loop": root,
        root / "dog/a": root / "dog/z",  # the folder itself keeps its images
        root / "dog/more": elsewhere,
        root / "dog/more2": elsewhere,
        elsewhere / "back": root,
    }
    for link, target in links.items():
        link.symlink_to(target)
    data = open_dataset(f"folder:{root}")
    assert data.names == ("cat/1.png", "dog/2.png", "dog/more/4.png", "dog/z/3.png")
    assert data.labels.tolist() == [0, 1, 1, 1]


def test_the_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    gray(tmp_path / "photos/a/1.png")
    assert len(open_dataset("folder:~/photos")) == 1


def test_names_in_any_script(tmp_path: Path) -> None:
    gray(tmp_path / "größe/猫 naïve.png")
    data = open_dataset(f"folder:{tmp_path}")
    assert data.names == ("größe/猫 naïve.png",)
    assert data.picture(0).size == (3, 2)


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text there")
def test_names_that_are_not_text(tmp_path: Path) -> None:
    gray(tmp_path / "a/1.png")
    os.rename(tmp_path / "a/1.png", os.fsencode(tmp_path / "a") + b"/\xff.png")
    data = open_dataset(f"folder:{tmp_path}")
    assert data.picture(0).size == (3, 2)
    assert len(data.content_digest) == 64


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_root_that_is_not_a_folder(kind: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    if kind == "file":
        root.write_text("")
    refused(lambda: open_dataset(f"folder:{root}"), repr(f"folder:{root}"), "is not a folder")


def test_a_folder_without_images(tmp_path: Path) -> None:
    refused(lambda: open_dataset(f"folder:{tmp_path}"), str(tmp_path), "holds no images")
    (tmp_path / "a").mkdir()
    refused(lambda: open_dataset(f"folder:{tmp_path}"), str(tmp_path), "holds no images")


def test_an_unreadable_image_is_an_error_on_access(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/broken.png").write_text("no image")
    gray(tmp_path / "a/gone.png")
    data = open_dataset(f"folder:{tmp_path}")
    refused(lambda: data.picture(0), "broken.png")
    (tmp_path / "a/gone.png").unlink()
    refused(lambda: data.picture(1), "gone.png", "does not exist")
    assert data.content_digest
