"""Oxford-IIIT Pet as torchvision unpacks it: breeds, splits and trimaps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import OxfordIIITPet

from classlens.data.open_dataset import open_dataset
from tests.data import drawn
from tests.refusals import refused

BREEDS = {"Abyssinian": (1, 1, 1), "american_bulldog": (2, 2, 1), "Bengal": (3, 1, 2)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two photos of each of three breeds in the test split, one of two breeds in the other."""
    base = tmp_path / "oxford-iiit-pet"
    for folder in ("images", "annotations/trimaps", "annotations/xmls"):
        (base / folder).mkdir(parents=True)
    for split, numbers in (("test", (100, 7)), ("trainval", (1,))):
        lines = ["#Image CLASS-ID SPECIES BREED ID"] if split == "test" else []
        for breed, ids in BREEDS.items():
            for number in numbers:
                lines.append(f"{breed}_{number} {' '.join(map(str, ids))}")
                Image.new("RGB", (16, 16), (number, 0, 0)).save(base / "images" / f"{breed}_{number}.jpg")
                trimap = Image.fromarray(drawn.values(o=1, dot=2, b=2, x=3))
                trimap.save(base / "annotations/trimaps" / f"{breed}_{number}.png")
        (base / "annotations" / f"{split}.txt").write_text("\n".join(lines) + "\n")
    (base / "annotations/trimaps/._Abyssinian_100.png").write_bytes(b"a file of macOS in the published archive")
    return tmp_path


def test_photos_breeds_and_trimaps(root: Path) -> None:
    data = open_dataset(f"pets:{root}")
    assert data.names[:2] == ("images/Abyssinian_100.jpg", "images/Abyssinian_7.jpg")
    assert data.names == tuple(sorted(data.names))
    assert [category.name for category in data.classes] == ["Abyssinian", "American Bulldog", "Bengal"]
    assert data.class_counts == {"Abyssinian": 2, "American Bulldog": 2, "Bengal": 2}
    assert (data.split, data.masks, data.missing_masks) == ("test", "", ())
    for index in (0, 5):
        drawn.check(data, index)
    assert open_dataset(f"pets:{root}/oxford-iiit-pet").names == data.names


def test_classes_are_those_of_torchvision(root: Path) -> None:
    published = OxfordIIITPet(str(root), split="trainval", download=False)
    data = open_dataset(f"pets:{root}", split="trainval")
    assert [category.name for category in data.classes] == published.classes
    theirs = {Path(image).name: label for image, label in zip(published._images, published._labels, strict=True)}
    assert {Path(name).name: label for name, label in zip(data.names, data.labels.tolist(), strict=True)} == theirs


def test_misfits(root: Path) -> None:
    trimaps = root / "oxford-iiit-pet/annotations/trimaps"
    path = trimaps / "Abyssinian_100.png"
    for number, says in ((2, "no object"), (4, "holds 4 beside")):
        Image.fromarray(np.full((16, 16), number, dtype=np.uint8)).save(path)
        refused(lambda: open_dataset(f"pets:{root}").mask(0), repr(str(path)), says)
    path.unlink()
    refused(lambda: open_dataset(f"pets:{root}").mask(0), repr(str(path)), "does not exist")
    trimaps.rename(trimaps.with_name("other"))
    assert not open_dataset(f"pets:{root}").has_masks
    refused(lambda: open_dataset(f"pets:{root}", split="train"), "mean 'trainval'")
    lists = root / "oxford-iiit-pet/annotations"
    (lists / "test.txt").write_text("Abyssinian_100\n")
    refused(lambda: open_dataset(f"pets:{root}"), "line 1", "published file")
    (lists / "test.txt").unlink()
    refused(lambda: open_dataset(f"pets:{root}"), "annotations/test.txt")


def test_another_trimap_is_another_content(root: Path) -> None:
    data = open_dataset(f"pets:{root}")
    before = data.content([0, 1]).tolist()
    Image.fromarray(np.ones((16, 16), dtype=np.uint8)).save(
        root / "oxford-iiit-pet/annotations/trimaps/Abyssinian_100.png"
    )
    after = data.content([0, 1]).tolist()
    assert before[0] != after[0]
    assert before[1] == after[1]
