"""ImageNet-S: images in folders of wnids, masks, and the published sample."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classlens.data.dataset import ClassName
from classlens.data.open_dataset import open_dataset
from tests.refusals import refused

TENCH, GOLDFISH, SHARK = "n01440764", "n01443537", "n01484850"
EXCLUDED = "n15075141"
# Not in the order of the folders, like the published file.
LISTED = [SHARK, "n00000000", TENCH, *(f"n9{number:07}" for number in range(300)), GOLDFISH, EXCLUDED]
IDS = {SHARK: 1, TENCH: 3, GOLDFISH: 304, EXCLUDED: 305}


def stem(wnid: str, number: int) -> str:
    return f"ILSVRC2012_val_{wnid[-4:]}{number:04}"


def make(root: Path, counts: dict[str, int], split: str = "validation", *, masks: bool = True) -> str:
    """Images 4 wide, 3 high; the mask shows the class at one pixel, another class, 0 and 1000 elsewhere."""
    folder = root / "ImageNetS919"
    for wnid, count in counts.items():
        (folder / split / wnid).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (4, 3)).save(folder / split / wnid / f"{stem(wnid, number)}.JPEG")
            if masks:
                path = folder / f"{split}-segmentation" / wnid / f"{stem(wnid, number)}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                ids = np.zeros((3, 4), dtype=np.int64)
                ids[0, 1], ids[1], ids[2] = IDS[wnid], IDS[wnid] + 256, 1000
                blue = np.full_like(ids, 77)  # without meaning
                Image.fromarray(np.stack([ids % 256, ids // 256, blue], axis=-1).astype(np.uint8)).save(path)
    (root / "data/categories").mkdir(parents=True, exist_ok=True)
    (root / "data/categories/ImageNetS_categories_im919.txt").write_text("\n".join(LISTED) + "\n")
    return f"imagenet-s:{root}"


def stim_info(root: Path, images: list[str]) -> None:
    lines = [f"{number},{number},cat,{image},{number}" for number, image in enumerate(images)]
    text = "\n".join(["imagenet_id,index,cat,img_name,img_index", *lines]) + "\n"
    (root / "ImageNetS919/validation_stim_info.csv").write_text(text)


def test_images_and_their_classes(tmp_path: Path) -> None:
    data = open_dataset(make(tmp_path, {SHARK: 1, TENCH: 2}))
    assert data.names == (
        f"{TENCH}/{stem(TENCH, 0)}.JPEG",
        f"{TENCH}/{stem(TENCH, 1)}.JPEG",
        f"{SHARK}/{stem(SHARK, 0)}.JPEG",
    )
    assert data.labels.tolist() == [0, 0, 1]
    assert [category.wnid for category in data.classes] == [TENCH, SHARK]
    assert data.classes[0].name.startswith("tench")  # from timm's table
    assert data.split == "validation"
    assert data.picture(2).size == (4, 3)
    assert data.note == ""


def test_the_inner_folder_as_root(tmp_path: Path) -> None:
    make(tmp_path, {TENCH: 1})
    data = open_dataset(f"imagenet-s:{tmp_path / 'ImageNetS919'}")
    assert data.names == (f"{TENCH}/{stem(TENCH, 0)}.JPEG",)
    mask = data.mask(0)
    assert mask is not None
    assert mask.sum() == 1


def test_hidden_folders_are_not_classes(tmp_path: Path) -> None:
    spec = make(tmp_path, {TENCH: 1})
    (tmp_path / "ImageNetS919/validation/.ipynb_checkpoints").mkdir()
    assert len(open_dataset(spec).classes) == 1


def test_names_from_the_published_mapping(tmp_path: Path) -> None:
    spec = make(tmp_path, {TENCH: 1, SHARK: 1})
    (tmp_path / "ImageNetS919/LOC_synset_mapping.txt").write_text(f"{TENCH} tench, Tinca tinca\n\n{GOLDFISH} gold\n")
    assert open_dataset(spec).classes == (ClassName("tench, Tinca tinca", TENCH), ClassName(SHARK, SHARK))


def test_a_mask_shows_only_the_class_of_its_image(tmp_path: Path) -> None:
    data = open_dataset(make(tmp_path, {TENCH: 1, GOLDFISH: 1, SHARK: 1}))
    assert data.has_masks
    expected = np.zeros((3, 4), dtype=bool)
    expected[0, 1] = True
    for index in range(3):
        # goldfish is 304 = 48 + 256 · 1
        mask = data.mask(index)
        assert mask is not None
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, expected)
        np.testing.assert_array_equal(data.ignored(index), np.arange(12).reshape(3, 4) > 7)


def test_a_palette_mask(tmp_path: Path) -> None:
    spec = make(tmp_path, {TENCH: 1})
    path = tmp_path / "ImageNetS919/validation-segmentation" / TENCH / f"{stem(TENCH, 0)}.png"
    with Image.open(path) as image:
        image.convert("P", palette=Image.Palette.ADAPTIVE).save(path)
    mask = open_dataset(spec).mask(0)
    assert mask is not None
    assert np.argwhere(mask).tolist() == [[0, 1]]


def test_an_image_without_a_mask(tmp_path: Path) -> None:
    spec = make(tmp_path, {TENCH: 2})
    (tmp_path / "ImageNetS919/validation-segmentation" / TENCH / f"{stem(TENCH, 0)}.png").unlink()
    data = open_dataset(spec)
    assert data.has_masks
    assert data.mask(0) is None
    assert data.mask(1) is not None


def test_data_without_masks(tmp_path: Path) -> None:
    spec = make(tmp_path, {TENCH: 1}, masks=False)
    (tmp_path / "data/categories/ImageNetS_categories_im919.txt").unlink()
    data = open_dataset(spec)
    assert not data.has_masks
    assert data.mask(0) is None


def test_a_mask_that_cannot_be_read(tmp_path: Path) -> None:
    spec = make(tmp_path, {TENCH: 1})
    path = tmp_path / "ImageNetS919/validation-segmentation" / TENCH / f"{stem(TENCH, 0)}.png"
    path.write_bytes(path.read_bytes()[:40])
    refused(lambda: open_dataset(spec).mask(0), repr(str(path)), "cannot be read")


def test_masks_need_the_list_of_classes(tmp_path: Path) -> None:
    spec = make(tmp_path, {TENCH: 1})
    file = tmp_path / "data/categories/ImageNetS_categories_im919.txt"
    file.write_text(f"{SHARK}\n")
    refused(lambda: open_dataset(spec), repr(spec), TENCH, repr(str(file)))
    file.unlink()
    refused(lambda: open_dataset(spec), repr(spec), "ImageNetS_categories_im919.txt", "https://")


def test_splits(tmp_path: Path) -> None:
    make(tmp_path, {TENCH: 1})
    spec = make(tmp_path, {SHARK: 2}, "test", masks=False)
    assert len(open_dataset(spec)) == 1
    test = open_dataset(spec, split="test")
    assert (len(test), test.split, test.has_masks) == (2, "test", False)
    refused(lambda: open_dataset(spec, split="train"), repr(spec), "'train'", "validation and test")


def test_the_only_split_is_the_default(tmp_path: Path) -> None:
    spec = make(tmp_path, {SHARK: 2}, "test")
    assert open_dataset(spec).split == "test"
    refused(lambda: open_dataset(spec, split="validation"), "it has test")


def test_another_folder(tmp_path: Path) -> None:
    refused(lambda: open_dataset(f"imagenet-s:{tmp_path}"), repr(f"imagenet-s:{tmp_path}"), "ImageNetS919/validation")
    refused(lambda: open_dataset(f"imagenet-s:{tmp_path}/none"), "is not a folder")


# The published sample


def test_five_images_per_class_by_the_rule(tmp_path: Path) -> None:
    data = open_dataset(make(tmp_path, {TENCH: 6, SHARK: 4, GOLDFISH: 5, EXCLUDED: 7}), per_class=5)
    assert data.names == tuple(f"{w}/{stem(w, number)}.JPEG" for w in (TENCH, GOLDFISH) for number in range(5))
    assert data.note == "not the published sample"
    assert data.mask(7) is not None


def test_another_number_is_another_sample(tmp_path: Path) -> None:
    spec = make(tmp_path, {TENCH: 6, SHARK: 3, EXCLUDED: 7})
    for data, counts in (
        (open_dataset(spec, per_class=4), [4, 3, 4]),
        (open_dataset(spec, per_class=5, seed=0), [5, 3, 5]),
    ):
        assert np.bincount(data.labels).tolist() == counts
        assert data.note == ""


def test_the_published_list(tmp_path: Path) -> None:
    spec = make(tmp_path, {TENCH: 6, EXCLUDED: 2})
    stim_info(tmp_path, [f"{stem(EXCLUDED, 1)}.JPEG", stem(TENCH, 4), f"x/{stem(TENCH, 2)}.JPEG", stem(TENCH, 4)])
    data = open_dataset(spec, per_class=5)
    assert [Path(name).stem for name in data.names] == [stem(TENCH, 2), stem(TENCH, 4), stem(EXCLUDED, 1)]
    assert data.note == "the published sample"
    assert len(open_dataset(spec)) == 8


def test_a_list_with_missing_images(tmp_path: Path) -> None:
    spec = make(tmp_path, {TENCH: 2})
    stim_info(tmp_path, [stem(TENCH, 0), stem(TENCH, 7), stem(TENCH, 8)])
    refused(lambda: open_dataset(spec, per_class=5), stem(TENCH, 7), "2 of 3", "validation_stim_info.csv")


@pytest.mark.parametrize("text", ["", "image\nx\n", "img_name\n", "other,img_name\nx\n"])
def test_a_list_without_its_columns(text: str, tmp_path: Path) -> None:
    spec = make(tmp_path, {TENCH: 2})
    (tmp_path / "ImageNetS919/validation_stim_info.csv").write_text(text)
    refused(lambda: open_dataset(spec, per_class=5), "validation_stim_info.csv")


@pytest.mark.parametrize(
    "file",
    [
        "ImageNetS919/validation_stim_info.csv",
        "ImageNetS919/LOC_synset_mapping.txt",
        "data/categories/ImageNetS_categories_im919.txt",
    ],
)
def test_a_file_that_is_not_text(file: str, tmp_path: Path) -> None:
    spec = make(tmp_path, {TENCH: 2})
    (tmp_path / file).write_bytes(bytes(range(256)))
    refused(lambda: open_dataset(spec, per_class=5), repr(str(tmp_path / file)), "cannot be read")


def test_a_dataset_can_be_pickled(tmp_path: Path) -> None:
    data = open_dataset(make(tmp_path, {TENCH: 6, SHARK: 6}), per_class=5, limit=7)
    copy = pickle.loads(pickle.dumps(data))
    assert copy.names == data.names
    assert copy.content_digest == data.content_digest
    np.testing.assert_array_equal(copy.mask(6), data.mask(6))
