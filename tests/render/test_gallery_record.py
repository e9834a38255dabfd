"""The record of a gallery: compact, whole, and with questions about columns that exist."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classlens.analysis.gallery_columns import COLUMNS
from classlens.data.dataset import Dataset, Masks
from classlens.data.open_dataset import open_dataset
from classlens.render.gallery_record import QUESTIONS, gallery_record
from tests.data.pictures import imagenet_s
from tests.render.galleries import ATTRS, GallerySizes, make_gallery, photo_files


def test_5000_photos_are_below_a_megabyte(tmp_path: Path) -> None:
    sizes = GallerySizes(images=5000)
    record = gallery_record(
        make_gallery(sizes), ATTRS, store="photos.zarr", dataset=photo_files(tmp_path, sizes), total=6000
    )
    assert len(json.dumps(record, allow_nan=False, separators=(",", ":"))) < 1e6
    assert record["total"] == 6000
    assert {len(column["values"]) for column in record["columns"].values()} == {5000}


def test_questions_ask_about_columns_that_exist() -> None:
    fixed = {"index", "correct", "confusion"}
    for name, question in QUESTIONS.items():
        assert {*question.columns, question.color} <= {*COLUMNS, *fixed}, name
        assert question.about.endswith(".")


@pytest.mark.parametrize("seed", range(3))
def test_bars_hold_every_value(seed: int) -> None:
    record = gallery_record(make_gallery(GallerySizes(images=300, seed=seed)), ATTRS, store="a.zarr")
    for name, column in record["columns"].items():
        edges = np.array(column["edges"])
        assert (np.diff(edges) > 0).all(), name
        assert 2 <= len(edges) <= 22, name
        known = np.array([value for value in column["values"] if value is not None])
        # Nearly all lie between the outer borders, so that the bars spread over the photos.
        assert ((known >= edges[0]) & (known <= edges[-1])).mean() > 0.98, name
        if column["kind"] == "whole":
            assert all(isinstance(edge, int) for edge in column["edges"])


def test_constant_and_unknown_columns_have_edges() -> None:
    table = make_gallery(GallerySizes(images=10))
    table.images["margin"], table.images["doubt"], table.images["changes"] = 2.5, np.nan, 3.0
    columns = gallery_record(table, ATTRS, store="a.zarr")["columns"]
    assert columns["margin"]["edges"][0] == 2.5
    assert columns["changes"]["edges"] == [3, 4]
    assert columns["doubt"]["edges"] == []
    assert set(columns["doubt"]["values"]) == {None}


def test_values_that_differ_in_their_last_digit_share_a_bar() -> None:
    table = make_gallery(GallerySizes(images=190))
    table.images["margin"] = [1.234] * 189 + [1.235]
    assert gallery_record(table, ATTRS, store="a.zarr")["columns"]["margin"]["edges"] == [1.234, 2.234]


def test_chosen_photos_alone() -> None:
    table = make_gallery(GallerySizes(images=30))
    indices = table.images["index"].tolist()
    record = gallery_record(table, ATTRS, store="a.zarr", chosen=[indices[7], indices[2], 10**6])
    assert record["index"] == [indices[2], indices[7]]
    assert record["names"] == [table.images["image"][2], table.images["image"][7]]


def test_missing_columns_and_questions_have_their_reason() -> None:
    record = gallery_record(make_gallery(GallerySizes(missing=("doubt",), labels=False)), ATTRS, store="a.zarr")
    reasons = {question["name"]: question["missing"] for question in record["questions"]}
    assert reasons["doubtful"] == "measure anew with --doubt"
    assert "labels" in reasons["wrong"]
    assert reasons["all"] is None
    assert record["missing"] == [["Doubt", "measure anew with --doubt"]]


def list_facts(dataset: Dataset | None, names: tuple[str, ...]) -> dict[str, object]:
    table = make_gallery(GallerySizes(images=len(names), first_names=names))
    facts: dict[str, object] = gallery_record(table, ATTRS, store="a.zarr", dataset=dataset)["list"]
    return facts


def test_paths_of_files_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = imagenet_s(tmp_path / "data", ["n01440764", "n02102040"], 2)
    monkeypatch.chdir(tmp_path)
    dataset = open_dataset(spec.replace(str(tmp_path) + "/", ""))
    facts = list_facts(dataset, (*dataset.names, "gone.jpg"))
    assert facts["paths"] == {"4": None}
    for name in dataset.names:
        assert Path(f"{facts['root']}{name}").is_absolute()
        Image.open(f"{facts['root']}{name}").verify()


def test_a_list_of_files_elsewhere(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    (tmp_path / "a" / "list.txt").write_text(f"1.png\n{tmp_path}/b/2.png\n../b/../b/2.png\n")
    dataset = open_dataset(f"list:{tmp_path / 'a' / 'list.txt'}")
    facts = list_facts(dataset, dataset.names)
    paths = facts["paths"]
    assert isinstance(paths, dict)
    whole = [paths.get(str(position), f"{facts['root']}{name}") for position, name in enumerate(dataset.names)]
    assert whole == [str(tmp_path / "a/1.png"), str(tmp_path / "b/2.png"), str(tmp_path / "b/2.png")]


def test_photos_that_are_no_files_have_a_reason(tmp_path: Path) -> None:
    assert "--data" in str(list_facts(None, ("a.jpg",))["reason"])


def test_the_command_quotes_names() -> None:
    record = gallery_record(make_gallery(GallerySizes()), {**ATTRS, "model": "my model; rm"}, store="s3://x/a b.zarr/")
    assert record["command"] == (
        "classlens measure --model 'my model; rm' --data list:selection.txt --out 'a b-selection.zarr'"
    )


@dataclass(frozen=True)
class Pixels:
    """Photos that are no files, as those of CIFAR."""

    has_masks: bool = False

    def picture(self, position: int) -> Image.Image:
        return Image.new("RGB", (2, 2))

    def masks(self, position: int) -> Masks:
        return None, None

    def content(self, position: int) -> int:
        return 1


def test_pixels_without_files_make_no_list() -> None:
    dataset = Dataset.whole("pixels", None, ("0", "1"), [-1, -1], (), Pixels())
    assert "no files" in str(list_facts(dataset, dataset.names)["reason"])
