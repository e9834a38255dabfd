"""Subsets and fingerprints of a data set, and its way to another process."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from classlens.data.dataset import ClassName, Dataset, ImageFiles
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


def test_the_fingerprint_identifies_images_and_their_order(spec: str) -> None:
    data = open_dataset(spec)
    assert data.fingerprint == open_dataset(spec).fingerprint
    assert data.subset(range(20)).fingerprint == data.fingerprint
    assert data.subset(range(19)).fingerprint != data.fingerprint
    assert data.subset([1, 0]).fingerprint != data.subset([0, 1]).fingerprint


def test_the_fingerprint_covers_names_labels_classes_and_sizes(tmp_path: Path) -> None:
    files = ImageFiles(tmp_path, ("a.png",))
    (tmp_path / "a.png").write_bytes(b"12345")

    def fingerprint(name: str = "a.png", label: int = 0, category: str = "ant", wnid: str | None = None) -> str:
        return Dataset.whole("folder:x", None, [name], [label], [ClassName(category, wnid)], files).fingerprint

    fingerprints = [
        fingerprint(),
        fingerprint(name="b.png"),
        fingerprint(label=-1),
        fingerprint(category="bee"),
        fingerprint(wnid="n1"),
    ]
    (tmp_path / "a.png").write_bytes(b"123456")
    fingerprints.append(fingerprint())
    (tmp_path / "a.png").unlink()
    fingerprints.append(fingerprint())
    assert len(set(fingerprints)) == 7


def test_the_fingerprint_does_not_depend_on_the_root(spec: str, tmp_path: Path) -> None:
    before = open_dataset(spec).fingerprint
    moved = tmp_path.rename(tmp_path.with_name(f"{tmp_path.name}-moved"))
    assert open_dataset(f"folder:{moved}").fingerprint == before


def test_a_dataset_can_be_pickled(spec: str) -> None:
    data = open_dataset(spec, per_class=2, seed=0)
    for compute_first in (False, True):  # the fingerprint is cached
        fingerprint = data.fingerprint if compute_first else None
        copy = pickle.loads(pickle.dumps(data))
        assert (copy.names, copy.classes, copy.spec) == (data.names, data.classes, data.spec)
        assert copy.fingerprint == (fingerprint or data.fingerprint)
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
