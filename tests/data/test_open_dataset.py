"""Specs of data sets and samples of their images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classlens.data.open_dataset import open_dataset, sample_images
from classlens.data.registry import LAYOUTS
from tests.data.pictures import numbered_images
from tests.refusals import refused

COUNTS = {"ant": 9, "bee": 2, "cow": 9}


@pytest.fixture
def spec(tmp_path: Path) -> str:
    return numbered_images(tmp_path, COUNTS)


def numbers(names: tuple[str, ...], kind: str) -> list[int]:
    return [int(Path(name).stem) for name in names if name.startswith(kind)]


# Specs


def test_an_unknown_layout() -> None:
    message = refused(lambda: open_dataset("foldr:x"), "'foldr:x'", "did you mean 'folder:ROOT'")
    assert "not a layout" in message
    refused(lambda: open_dataset("qqqqqqqq:x"), *(f"{name}:" for name in LAYOUTS))


@pytest.mark.parametrize("spec", ["", "folder", "folder:", ":x", "cifar10"])
def test_a_spec_needs_a_layout_and_a_place(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(lambda: open_dataset(spec), repr(spec))


def test_a_path_without_a_layout_suggests_folder(tmp_path: Path) -> None:
    refused(lambda: open_dataset(str(tmp_path)), f"did you mean 'folder:{tmp_path}'?")


# Samples


def test_all_images(spec: str) -> None:
    data = open_dataset(spec)
    assert len(data) == 20
    assert np.bincount(data.labels).tolist() == [9, 2, 9]
    assert data.spec == spec


def test_first_images_of_each_class(spec: str) -> None:
    data = open_dataset(spec, per_class=3)
    assert [numbers(data.names, kind) for kind in COUNTS] == [[0, 1, 2], [0, 1], [0, 1, 2]]
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert [int(np.asarray(data.picture(index))[0, 0, 0]) for index in range(8)] == [0, 1, 2, 0, 1, 0, 1, 2]


def test_first_images(spec: str) -> None:
    assert open_dataset(spec, limit=4).names == ("ant/0.png", "ant/1.png", "bee/0.png", "cow/0.png")
    assert open_dataset(spec, limit=2).names == ("ant/0.png", "bee/0.png")
    assert np.bincount(open_dataset(spec, limit=10).labels).tolist() == [4, 2, 4]
    assert np.bincount(open_dataset(spec, limit=19).labels).tolist() == [9, 2, 8]
    assert len(open_dataset(spec, limit=20)) == len(open_dataset(spec, limit=10**9)) == 20


def test_limit_applies_after_per_class(spec: str) -> None:
    data = open_dataset(spec, per_class=2, limit=3)
    assert data.names == ("ant/0.png", "bee/0.png", "cow/0.png")
    assert data.classes == open_dataset(spec).classes


def test_a_seed_draws_a_sample_in_order_of_names(spec: str) -> None:
    sample = open_dataset(spec, per_class=4, seed=1)
    assert sample.names == open_dataset(spec, per_class=4, seed=1).names
    assert sample.names == tuple(sorted(sample.names))
    assert len(set(sample.names)) == 10
    assert np.bincount(sample.labels).tolist() == [4, 2, 4]
    others = {open_dataset(spec, per_class=4, seed=seed).names for seed in range(10)}
    assert len(others) > 5
    # Classes of equal size get different samples.
    assert any(
        numbers(names, "ant") != numbers(names, "cow")
        for names in (open_dataset(spec, per_class=4, seed=seed).names for seed in range(3))
    )


def test_a_seed_with_a_limit(spec: str) -> None:
    samples = [open_dataset(spec, limit=5, seed=seed).names for seed in range(30)]
    assert all(len(names) == 5 and names == tuple(sorted(names)) for names in samples)
    assert {name for names in samples for name in names} == set(open_dataset(spec).names)
    counts = {tuple(np.bincount(open_dataset(spec, limit=5, seed=seed).labels, minlength=3)) for seed in range(30)}
    assert counts == {(2, 2, 1), (2, 1, 2), (1, 2, 2)}  # the class that has fewer is drawn


def test_a_limit_of_images_of_which_some_have_labels(spec: str) -> None:
    """Images without a label count as the last class; without any label, the first are taken."""
    data = open_dataset(spec)
    partly = replace(data, labels=np.where(data.labels == 0, -1, data.labels))
    taken = [sample_images(partly, per_class=None, limit=limit, seed=None).labels.tolist() for limit in (2, 3, 5)]
    assert taken == [[1, 2], [-1, 1, 2], [-1, 1, 1, 2, 2]]
    unlabeled = replace(data, labels=np.full(20, -1), classes=())
    assert sample_images(unlabeled, per_class=None, limit=4, seed=None).names == data.names[:4]


def test_a_seed_without_a_sample_keeps_all_images(spec: str) -> None:
    assert open_dataset(spec, seed=3).names == open_dataset(spec).names
    assert open_dataset(spec, per_class=9, seed=3).names == open_dataset(spec).names


@pytest.mark.parametrize("count", [0, -1])
@pytest.mark.parametrize("name", ["per_class", "limit"])
def test_counts_below_one(name: str, count: int, spec: str) -> None:
    if name == "limit":
        refused(lambda: open_dataset(spec, limit=count), "limit", str(count))
    else:
        refused(lambda: open_dataset(spec, per_class=count), "per_class", str(count))


def test_a_seed_below_zero(spec: str) -> None:
    refused(lambda: open_dataset(spec, limit=2, seed=-1), "seed -1 cannot be used")


def test_per_class_needs_labels(tmp_path: Path) -> None:
    Image.new("L", (2, 2)).save(tmp_path / "a.png")
    refused(lambda: open_dataset(f"folder:{tmp_path}", per_class=1), str(tmp_path), "no labels")
