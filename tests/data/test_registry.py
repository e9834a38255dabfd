"""Specs, the choice of some images, and what tells one data set from another."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classlens.data.dataset import ClassName, Dataset, ImageFiles
from classlens.data.registry import LAYOUTS, open_dataset
from tests.refusals import refused

COUNTS = {"ant": 9, "bee": 2, "cow": 9}


@pytest.fixture
def spec(tmp_path: Path) -> str:
    for name, count in COUNTS.items():
        (tmp_path / name).mkdir()
        for number in range(count):
            Image.new("L", (2, 2), number).save(tmp_path / name / f"{number}.png")
    return f"folder:{tmp_path}"


def numbers(names: tuple[str, ...], kind: str) -> list[int]:
    return [int(Path(name).stem) for name in names if name.startswith(kind)]


# Specs


def test_a_layout_that_is_none() -> None:
    message = refused(lambda: open_dataset("foldr:x"), "'foldr:x'", "did you mean 'folder'")
    assert "not a layout" in message
    refused(lambda: open_dataset("qqqqqqqq:x"), *(f"{name}:" for name in LAYOUTS))


@pytest.mark.parametrize("spec", ["", "folder", "folder:", ":x", "cifar10"])
def test_a_layout_and_a_place_are_needed(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(lambda: open_dataset(spec), repr(spec))


def test_a_path_alone_suggests_the_layout(tmp_path: Path) -> None:
    refused(lambda: open_dataset(str(tmp_path)), f"did you mean 'folder:{tmp_path}'?")


# The choice


def test_all_images(spec: str) -> None:
    data = open_dataset(spec)
    assert len(data) == 20
    assert np.bincount(data.labels).tolist() == [9, 2, 9]
    assert data.spec == spec


def test_the_first_of_each_class(spec: str) -> None:
    data = open_dataset(spec, per_class=3)
    assert [numbers(data.names, kind) for kind in COUNTS] == [[0, 1, 2], [0, 1], [0, 1, 2]]
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert [int(np.asarray(data.picture(index))[0, 0, 0]) for index in range(8)] == [0, 1, 2, 0, 1, 0, 1, 2]


def test_the_first_of_all(spec: str) -> None:
    assert open_dataset(spec, limit=4).names == ("ant/0.png", "ant/1.png", "ant/2.png", "ant/3.png")
    assert len(open_dataset(spec, limit=20)) == len(open_dataset(spec, limit=10**9)) == 20


def test_the_limit_comes_after_the_classes(spec: str) -> None:
    data = open_dataset(spec, per_class=2, limit=3)
    assert data.names == ("ant/0.png", "ant/1.png", "bee/0.png")
    assert data.classes == open_dataset(spec).classes


def test_a_seed_draws_and_keeps_the_order(spec: str) -> None:
    drawn = open_dataset(spec, per_class=4, seed=1)
    assert drawn.names == open_dataset(spec, per_class=4, seed=1).names
    assert drawn.names == tuple(sorted(drawn.names))
    assert len(set(drawn.names)) == 10
    assert np.bincount(drawn.labels).tolist() == [4, 2, 4]
    others = {open_dataset(spec, per_class=4, seed=seed).names for seed in range(10)}
    assert len(others) > 5
    # Classes of one size are drawn from apart.
    assert any(
        numbers(names, "ant") != numbers(names, "cow")
        for names in (open_dataset(spec, per_class=4, seed=seed).names for seed in range(3))
    )


def test_a_seed_with_a_limit(spec: str) -> None:
    samples = [open_dataset(spec, limit=5, seed=seed).names for seed in range(30)]
    assert all(len(names) == 5 and names == tuple(sorted(names)) for names in samples)
    assert {name for names in samples for name in names} == set(open_dataset(spec).names)


def test_a_seed_where_nothing_is_drawn(spec: str) -> None:
    assert open_dataset(spec, seed=3).names == open_dataset(spec).names
    assert open_dataset(spec, per_class=9, seed=3).names == open_dataset(spec).names


@pytest.mark.parametrize("count", [0, -1])
@pytest.mark.parametrize("name", ["per_class", "limit"])
def test_fewer_than_one(name: str, count: int, spec: str) -> None:
    if name == "limit":
        refused(lambda: open_dataset(spec, limit=count), "limit", str(count))
    else:
        refused(lambda: open_dataset(spec, per_class=count), "per_class", str(count))


def test_a_seed_below_zero(spec: str) -> None:
    refused(lambda: open_dataset(spec, limit=2, seed=-1), "seed is -1")


def test_images_of_each_class_need_classes(tmp_path: Path) -> None:
    Image.new("L", (2, 2)).save(tmp_path / "a.png")
    refused(lambda: open_dataset(f"folder:{tmp_path}", per_class=1), str(tmp_path), "no labels")


# A data set


def test_a_subset_of_a_subset(spec: str) -> None:
    whole = open_dataset(spec)
    part = whole.subset([19, 3, 10]).subset(np.array([2, 0]))
    assert part.names == (whole.names[10], whole.names[19])
    assert part.labels.tolist() == [1, 2]
    assert int(np.asarray(part.picture(1))[0, 0, 0]) == 8
    assert len(whole.subset([])) == 0


def test_the_fingerprint_tells_data_apart(spec: str) -> None:
    data = open_dataset(spec)
    same = open_dataset(spec)
    assert data.fingerprint == same.fingerprint
    assert data.subset(range(20)).fingerprint == data.fingerprint
    assert data.subset(range(19)).fingerprint != data.fingerprint
    assert data.subset([1, 0]).fingerprint != data.subset([0, 1]).fingerprint


def test_the_fingerprint_by_what_it_is_made_of(tmp_path: Path) -> None:
    files = ImageFiles(tmp_path, ("a.png",))
    (tmp_path / "a.png").write_bytes(b"12345")

    def made(name: str = "a.png", label: int = 0, kind: str = "ant", wnid: str | None = None) -> str:
        return Dataset.whole("folder:x", None, [name], [label], [ClassName(kind, wnid)], files).fingerprint

    fingerprints = [made(), made(name="b.png"), made(label=-1), made(kind="bee"), made(wnid="n1")]
    (tmp_path / "a.png").write_bytes(b"123456")
    fingerprints.append(made())
    (tmp_path / "a.png").unlink()
    fingerprints.append(made())
    assert len(set(fingerprints)) == 7


def test_the_fingerprint_is_not_of_the_place(spec: str, tmp_path: Path) -> None:
    before = open_dataset(spec).fingerprint
    moved = tmp_path.rename(tmp_path.with_name(f"{tmp_path.name}-moved"))
    assert open_dataset(f"folder:{moved}").fingerprint == before


def test_it_goes_to_another_process(spec: str) -> None:
    data = open_dataset(spec, per_class=2, seed=0)
    for again in (pickle.loads(pickle.dumps(data)), pickle.loads(pickle.dumps((data.fingerprint, data)[1]))):
        assert (again.names, again.classes, again.spec) == (data.names, data.classes, data.spec)
        assert again.fingerprint == data.fingerprint
        assert again.picture(3).tobytes() == data.picture(3).tobytes()
