"""Images and classes that stores have in common, and stores that lack what others have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zarr

from classlens.analysis.comparison.compare import compare
from classlens.core.stats import Statistics
from classlens.errors import ClasslensError
from tests.analysis.comparison import literal
from tests.analysis.comparison.pairs import FIRST, PHOTOS, SECOND, SideSpec, drawn_labels, write_side
from tests.analysis.stores import StoreSpec, write_store

FAST = Statistics(resamples=40)


def test_images_are_matched_by_name_without_content(tmp_path: Path) -> None:
    second = replace(SECOND, content=False, names={2: "0001.png", 1: "elsewhere.png"})
    first, other = write_side(tmp_path / "a.zarr", FIRST), write_side(tmp_path / "b.zarr", second)
    result = compare(first, other, statistics=FAST)
    assert result.attrs["matched_by"] == "name"
    assert (result.images["image"] == result.images["image_second"]).all()
    pairs = literal.match(literal.read_images(first), literal.read_images(other), "name")
    assert set(zip(result.images["index_first"], result.images["index_second"], strict=True)) == {
        (one["index"], two["index"]) for one, two in pairs
    }
    with pytest.raises(ClasslensError, match="do not both hold the content"):
        compare(first, other, by="content")


def test_the_same_photo_twice_counts_twice(tmp_path: Path) -> None:
    spec = SideSpec(images=range(10), labels=drawn_labels(10))
    stores = [
        write_side(tmp_path / name, replace(spec, images=images))
        for name, images in (("a", range(10)), ("b", range(9, -1, -1)))
    ]
    for store, (one, other) in zip(stores, ((2, 5), (7, 4)), strict=True):
        group: Any = zarr.open_group(str(store), mode="r+")["clean"]
        content = group["content"]
        content[one] = content[other] = 77
    images = compare(*stores, statistics=FAST).images
    assert len(images) == 10
    assert (images["image"] == images["image_second"]).all()


def test_changed_photos_are_matched_on_request(tmp_path: Path) -> None:
    spec = SideSpec(images=range(10), labels=drawn_labels(10))
    moved = SideSpec(images=range(50, 60), labels=drawn_labels(60), names={50 + i: f"{i:04}.png" for i in range(10)})
    first, second = write_side(tmp_path / "a.zarr", spec), write_side(tmp_path / "b.zarr", moved)
    with pytest.raises(ClasslensError, match=r"no image in common by content.*10 have the same name.*--by name"):
        compare(first, second)
    assert compare(first, second, by="name", statistics=FAST).attrs["images"] == 10


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    first = write_side(tmp_path / "a.zarr", FIRST)
    other_classes = write_side(
        tmp_path / "b.zarr", replace(FIRST, classes=("u", "v"), labels=dict.fromkeys(range(PHOTOS)))
    )
    with pytest.raises(ClasslensError, match=r"no class name in common, such as 'a' and 'u'"):
        compare(first, other_classes)
    others = write_side(
        tmp_path / "c.zarr", SideSpec(images=range(500, 510), labels=dict.fromkeys(range(500, 510), "a"))
    )
    with pytest.raises(ClasslensError, match=r"no image in common by content: give stores of the same images$"):
        compare(first, others)
    with pytest.raises(ClasslensError, match="does not exist"):
        compare(first, tmp_path / "none.zarr")


def test_models_of_other_depth_and_stores_that_lack_parts(tmp_path: Path) -> None:
    first = write_side(tmp_path / "a.zarr", FIRST)
    deeper = write_side(tmp_path / "deep.zarr", replace(SECOND, blocks=5, heads=(2, 2, 2, 2, 2)))
    result = compare(first, deeper, statistics=FAST)
    assert result.heads.empty
    assert result.head_classes.empty
    assert "3 blocks of 3 heads and 5 blocks of 2 heads" in result.attrs["missing"]["heads"]
    table = result.trajectory
    assert table["depth"].is_monotonic_increasing
    assert table["difference"].isna().all()
    assert table.dropna(subset="first")["block"].tolist() == [0, 1, 2, 3]
    assert table.dropna(subset="second")["block"].tolist() == [0, 1, 2, 3, 4, 5]
    assert result.summary.set_index("measure")["difference"].notna().all()

    plain = write_side(tmp_path / "plain.zarr", replace(FIRST, attribution=False, trajectory=False))
    result = compare(first, plain, statistics=FAST)
    assert "no attribution: measure it with --attribution" in result.attrs["missing"]["heads"]
    assert result.trajectory.empty
    assert "trajectory" in result.attrs["missing"]
    assert "commitment" not in result.summary["measure"].tolist()


def test_stores_without_labels(tmp_path: Path) -> None:
    spec = replace(FIRST, labels=dict.fromkeys(range(PHOTOS)))
    first, second = write_side(tmp_path / "a.zarr", spec), write_side(tmp_path / "b.zarr", replace(spec, seed=2))
    result = compare(first, second, statistics=FAST)
    assert set(result.images["kind"]) == {"changed", "same"}
    assert result.classes.empty
    assert result.heads.empty
    assert result.trajectory.empty
    assert set(result.attrs["missing"]) == {"heads", "head_classes", "classes", "trajectory"}
    assert result.summary["measure"].tolist()[0] == "confidence"


def test_a_store_of_another_command_is_refused(tmp_path: Path) -> None:
    write_store(tmp_path / "a.zarr", StoreSpec(conditions=("random_init",), memories=False))
    with pytest.raises(ClasslensError, match="no condition 'clean'"):
        compare(tmp_path / "a.zarr", tmp_path / "a.zarr")
