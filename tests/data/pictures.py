"""Tiny data sets on disk, and stores compared value for value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr
import zarr
from PIL import Image

from classlens.models.builtin.cifar10 import CLASS_NAMES
from classlens.store.open_store import open_group


def picture(number: int, size: tuple[int, int] = (32, 32)) -> Image.Image:
    """Coarse blots, a different picture for each number."""
    coarse = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def folder(root: Path, images: int, classes: Sequence[str] = CLASS_NAMES) -> str:
    """``folder:root`` with ``images`` images, assigned to the classes in turn."""
    for number in range(images):
        class_folder = root / classes[number % len(classes)]
        class_folder.mkdir(parents=True, exist_ok=True)
        picture(number).save(class_folder / f"{number:04}.png")
    return f"folder:{root}"


def numbered_images(root: Path, counts: Mapping[str, int]) -> str:
    """``folder:root`` with gray images by class, each of its number's gray value."""
    for name, count in counts.items():
        (root / name).mkdir()
        for number in range(count):
            Image.new("L", (2, 2), number).save(root / name / f"{number}.png")
    return f"folder:{root}"


def imagenet_s(root: Path, wnids: Sequence[str], images: int) -> str:
    """The layout of ImageNet-S with masks: the left half of every image shows its class, a strip is ignored."""
    categories = root / "data/categories/ImageNetS_categories_im919.txt"
    categories.parent.mkdir(parents=True)
    # A class without images comes first, so that ids differ from positions among the folders.
    categories.write_text("\n".join(["n00000000", *wnids]) + "\n")
    for number, wnid in enumerate(wnids):
        for split, suffix in (("validation", "JPEG"), ("validation-segmentation", "png")):
            (root / "ImageNetS919" / split / wnid).mkdir(parents=True)
            for image in range(images):
                path = root / "ImageNetS919" / split / wnid / f"ILSVRC2012_val_{wnid}_{image:08}.{suffix}"
                if suffix == "JPEG":
                    picture(100 * number + image, (48, 40)).save(path, quality=95)
                else:
                    mask(number + 2).save(path)
    return f"imagenet-s:{root}"


def mask(class_id: int) -> Image.Image:
    """R + 256 · G is the class: ``class_id`` on the left half, 0 on the right, 1000 on the last rows."""
    ids = np.zeros((40, 48), dtype=np.int64)
    ids[:, :24] = class_id
    ids[38:] = 1000
    return Image.fromarray(np.stack([ids % 256, ids // 256, np.zeros_like(ids)], axis=-1).astype(np.uint8))


def groups(store: Path | str) -> list[str]:
    return sorted(zarr.open_group(str(store), mode="r").group_keys())


def assert_same(first: Path | str, second: Path | str) -> None:
    """Every array of every group has the same values and types, and the attributes are the same."""
    assert groups(first) == groups(second)
    for group in groups(first):
        left, right = (open_group(store, group).load() for store in (first, second))
        xr.testing.assert_identical(left, right)
        assert {name: left[name].dtype for name in left.variables} == {
            name: right[name].dtype for name in right.variables
        }
