"""Subsets and contents of a data set, and its way to another process."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from classlens.data.dataset import ClassName, Dataset, ImageFiles, file_content
from classlens.data.open_dataset import open_dataset
from classlens.errors import ClasslensError
from tests.data.pictures import numbered_images


@pytest.fixture
def spec(tmp_path: Path) -> str:
    return numbered_images(tmp_path, {"ant": 9, "bee": 2, "cow": 9})


def test_a_subset_of_a_subset(spec: str) -> None:
    whole = open_dataset(spec)
    part = whole.subset([19, 3, 10]).subset(np.array([2, 0]))
    assert part.names == (whole.names[10], whole.names[19])
    assert part.labels.tolist() == [1, 2]
    assert int(np.asarray(part.picture(1))[0, 0, 0]) == 8
    assert len(whole.subset([])) == 0


def test_the_content_identifies_images_and_their_order(spec: str) -> None:
    data = open_dataset(spec)
    assert data.content_digest == open_dataset(spec).content_digest
    assert data.subset(range(20)).content_digest == data.content_digest
    assert data.subset(range(19)).content_digest != data.content_digest
    assert data.subset([1, 0]).content_digest != data.subset([0, 1]).content_digest


def test_the_content_of_a_file_is_told_by_its_size_and_both_ends(tmp_path: Path) -> None:
    """Two reads of 64 KiB; what lies between them is not read."""
    path = tmp_path / "a.png"
    long = bytes(2**18)
    contents = [b"", b"12345", b"12346", b"123456", long, b"1" + long[1:], long[1:] + b"1", long + b"0"]
    found = []
    for content in contents:
        path.write_bytes(content)
        found.append(file_content(path))
    assert len(set(found)) == len(contents)
    assert all(0 <= number < 2**63 for number in found)
    path.write_bytes(long[: 2**17] + b"1" + long[2**17 + 1 :])
    assert file_content(path) == found[contents.index(long)]
    path.unlink()
    os.mkfifo(path)
    assert file_content(path) == file_content(tmp_path / "missing.png") == 0


def test_the_content_does_not_depend_on_the_root(spec: str, tmp_path: Path) -> None:
    before = open_dataset(spec).content_digest
    moved = tmp_path.rename(tmp_path.with_name(f"{tmp_path.name}-moved"))
    assert open_dataset(f"folder:{moved}").content_digest == before


def test_a_dataset_can_be_pickled(spec: str) -> None:
    data = open_dataset(spec, per_class=2, seed=0)
    for compute_first in (False, True):  # the digest is cached
        digest = data.content_digest if compute_first else None
        copy = pickle.loads(pickle.dumps(data))
        assert (copy.names, copy.classes, copy.spec) == (data.names, data.classes, data.spec)
        assert copy.content_digest == (digest or data.content_digest)
        assert copy.picture(3).tobytes() == data.picture(3).tobytes()


@pytest.mark.parametrize(
    ("names", "labels", "message"),
    [
        (["a", "b", "a"], [0, 0, 0], "two images of the name 'a'"),
        (["a", "b"], [0], "2 images and 1 labels"),
        (["a", "b"], [0, 2], "labels from 0 to 2 and 2 classes"),
        (["a", "b"], [-2, 0], "labels from -2 to 0 and 2 classes"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(names: list[str], labels: list[int], message: str) -> None:
    files = ImageFiles(Path(), tuple(names))
    classes = [ClassName("cat"), ClassName("dog")]
    with pytest.raises(ClasslensError, match=message):
        Dataset.whole("mine:x", None, names, labels, classes, files)
