"""Pascal VOC as torchvision unpacks it: labels by the class of most pixels, and what 255 means."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import VOCSegmentation

from classlens.core.arrays import Array
from classlens.data.open_dataset import open_dataset
from tests.data import drawn
from tests.refusals import refused

CAT, PERSON = 8, 15
"""Values of a mask."""


def write(folder: Path, name: str, values: Array) -> None:
    Image.new("RGB", values.shape[::-1], (0, 90, 0)).save(folder / "JPEGImages" / f"{name}.jpg")
    mask = Image.fromarray(values, mode="P")
    mask.putpalette([channel for value in range(256) for channel in (value * 37 % 256, value * 91 % 256, value)])
    mask.save(folder / "SegmentationClass" / f"{name}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "VOCdevkit/VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    write(folder, "2007_000033", drawn.values(o=CAT, b=PERSON, x=255, dot=0))
    write(folder, "2007_000042", np.array([[0, PERSON, CAT], [255, PERSON, 0]], dtype=np.uint8))
    write(folder, "2007_000061", np.array([[0, 255]], dtype=np.uint8))
    write(folder, "2007_000063", np.array([[1]], dtype=np.uint8))
    lists = folder / "ImageSets/Segmentation"
    lists.joinpath("val.txt").write_text("2007_000042\n2007_000033\n2007_000061\n")
    lists.joinpath("train.txt").write_text("2007_000063\n")
    return tmp_path


def test_photos_and_their_class(root: Path) -> None:
    data = open_dataset(f"voc:{root}")
    assert data.names == ("JPEGImages/2007_000033.jpg", "JPEGImages/2007_000042.jpg")
    assert data.class_counts == {"cat": 1, "person": 1}
    assert len(data.classes) == 20
    assert data.note == "photos without an object are left out: 1"
    drawn.check(data)
    mask, ignored = data.mask(1), data.ignored(1)
    assert mask is not None
    assert mask.tolist() == [[False, True, False], [False, True, False]]
    assert ignored is not None
    assert ignored.tolist() == [[False, False, False], [True, False, False]]
    copy = pickle.loads(pickle.dumps(data))
    assert copy.content_digest == data.content_digest


def test_masks_are_those_of_torchvision(root: Path) -> None:
    ((_, mask),) = VOCSegmentation(str(root), image_set="train", download=False)
    data = open_dataset(f"voc:{root}", split="train")
    assert np.asarray(mask).tolist() == [[1]]
    assert data.classes[data.labels[0]].name == "aeroplane"
    assert open_dataset(f"voc:{root}/VOCdevkit").names == open_dataset(f"voc:{root}").names
    assert open_dataset(f"voc:{root}/VOCdevkit/VOC2012").names == open_dataset(f"voc:{root}").names


def test_misfits(root: Path) -> None:
    folder = root / "VOCdevkit/VOC2012"
    write(folder, "2007_000033", drawn.values(o=CAT, b=21, x=255, dot=0))
    refused(lambda: open_dataset(f"voc:{root}").mask(0), "holds 21 beside 'object=8 ignore=255")
    (folder / "SegmentationClass/2007_000033.png").write_bytes(b"")
    data = open_dataset(f"voc:{root}")
    assert data.labels.tolist() == [-1, 14]
    refused(lambda: data.mask(0), "2007_000033.png", "cannot be read")
    refused(lambda: open_dataset(f"voc:{root}", split="test"), "it has val, train")
    refused(lambda: open_dataset(f"voc:{folder}/JPEGImages"), "VOCdevkit/VOC2012")
