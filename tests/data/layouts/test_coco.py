"""Instances of COCO: labels by the largest object, polygons, run lengths and crowds."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from classlens.core.arrays import Array
from classlens.data.open_dataset import open_dataset
from tests.data import drawn
from tests.refusals import refused

CATEGORIES = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 17, "name": "cat"}]


def polygons(letter: str, rows: list[str]) -> list[list[float]]:
    """A rectangle around each pixel of a letter."""
    found = [(i, j) for i, row in enumerate(rows) for j, each in enumerate(row) if each == letter]
    return [[j, i, j + 1, i, j + 1, i + 1, j, i + 1] for i, j in found]


def runs(mask: Array) -> dict[str, Any]:
    """Run lengths along the columns, from a pixel outside."""
    counts, inside = [0], False
    for pixel in mask.T.ravel().tolist():
        if bool(pixel) != inside:
            inside = bool(pixel)
            counts.append(0)
        counts[-1] += 1
    return {"size": list(mask.shape), "counts": counts}


def annotation(image: int, category: int, area: float, segmentation: Any, crowd: int = 0) -> dict[str, Any]:
    return {
        "image_id": image,
        "category_id": category,
        "area": area,
        "bbox": [0, 0, 1, 1],
        "segmentation": segmentation,
        "iscrowd": crowd,
    }


def content() -> dict[str, Any]:
    """Image 7 is the drawing, with its two parts as objects of one class; image 3 has a crowd alone."""
    upper = [*drawn.DRAWING[:5], *["." * 16] * 11]
    lower = [*["." * 16] * 5, *drawn.DRAWING[5:]]
    crowd = np.array([[letter in "xo" for letter in row] for row in drawn.DRAWING])  # objects lie in front of it
    return {
        "images": [
            {"id": 7, "file_name": "b.jpg", "height": 16, "width": 16},
            {"id": 3, "file_name": "a.jpg", "height": 16, "width": 16},
        ],
        "categories": CATEGORIES,
        "annotations": [
            annotation(7, 17, 30.0, polygons("o", upper)),
            annotation(7, 1, 40.0, polygons("b", drawn.DRAWING)),
            annotation(7, 17, 60.0, polygons("o", lower)),
            annotation(7, 1, 256.0, runs(crowd), crowd=1),
            annotation(3, 1, 9.0, runs(crowd), crowd=1),
        ],
    }


def write(root: Path, content: Any, split: str = "val2017") -> str:
    for name in ("a.jpg", "b.jpg"):
        path = root / split / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (0, 0, 200)).save(path)
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return f"coco:{root}"


def test_photos_objects_and_crowds(tmp_path: Path) -> None:
    write(tmp_path, content(), "train2017")
    data = open_dataset(write(tmp_path, content()))
    assert (data.names, data.split) == (("val2017/b.jpg",), "val2017")
    assert [category.name for category in data.classes] == ["person", "cat", "toothbrush"]
    assert data.labels.tolist() == [1]
    assert data.note == "photos without an object are left out: 1"
    drawn.check(data)
    assert open_dataset(f"coco:{tmp_path}", split="train2017").names == ("train2017/b.jpg",)
    assert pickle.loads(pickle.dumps(data)).content_digest == data.content_digest


def test_places_that_tools_write_to(tmp_path: Path) -> None:
    write(tmp_path, content())
    expected = open_dataset(f"coco:{tmp_path}").labels.tolist()
    file = tmp_path / "annotations/instances_val2017.json"
    assert open_dataset(f"coco:{file}").names == ("val2017/b.jpg",)
    (tmp_path / "val2017").rename(tmp_path / "images")
    assert open_dataset(f"coco:{tmp_path}").names == ("images/b.jpg",)
    alone = tmp_path / "images/_annotations.coco.json"
    file.rename(alone)
    data = open_dataset(f"coco:{alone}")
    assert (data.names, data.labels.tolist()) == (("b.jpg",), expected)
    refused(lambda: open_dataset(f"coco:{alone}", split="val"), "no splits")


def test_boxes_without_outlines(tmp_path: Path) -> None:
    """The larger box is the label; nothing is known of the pixels."""
    boxes = content()
    for number, each in enumerate(boxes["annotations"]):
        del each["area"], each["segmentation"]
        each["bbox"] = [0, 0, 4 + number % 2, 4]
    data = open_dataset(write(tmp_path, boxes))
    assert data.labels.tolist() == [0]
    assert not data.has_masks


@pytest.mark.parametrize(
    ("outline", "says"),
    [
        ([], "no outline"),
        ([[1, 1, 2]], "do not fit"),
        ({"size": [8, 8], "counts": [64]}, "8×8 pixels"),
        ({"size": [16, 16], "counts": [3, 4]}, "do not add up"),
        ([[1.1, 1.1, 1.2, 1.1, 1.2, 1.2]], "hold no pixel"),
    ],
)
def test_outlines_that_do_not_fit(outline: Any, says: str, tmp_path: Path) -> None:
    broken = content()
    broken["annotations"] = [annotation(3, 1, 4.0, [[0, 0, 4, 0, 4, 4]]), annotation(7, 17, 30.0, outline)]
    data = open_dataset(write(tmp_path, broken))
    assert data.mask(0) is not None
    refused(lambda: data.mask(1), "'val2017/b.jpg'", says)


def test_files_of_another_kind(tmp_path: Path) -> None:
    spec = write(tmp_path, content())
    file = tmp_path / "annotations/instances_val2017.json"
    for text, says in (("{", "instances of COCO"), ("[]", "instances of COCO"), ('{"images": []}', "photos of")):
        file.write_text(text)
        refused(lambda: open_dataset(spec), repr(spec), says)
    for key in ("images", "annotations", "categories"):
        file.write_text(json.dumps({name: value for name, value in content().items() if name != key}))
        refused(lambda: open_dataset(spec), f"lacks '{key}'")
    refused(lambda: open_dataset(spec, split="val"), "mean 'val2017'")
    file.unlink()
    refused(lambda: open_dataset(spec), "annotations/instances_….json")


def test_another_outline_is_another_content(tmp_path: Path) -> None:
    spec = write(tmp_path, content())
    before = open_dataset(spec).content_digest
    moved = content()
    moved["annotations"][0]["segmentation"][0][0] += 0.25
    write(tmp_path, moved)
    assert open_dataset(spec).content_digest != before
