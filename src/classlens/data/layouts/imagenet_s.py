"""``imagenet-s:ROOT``: ImageNet-S, the validation and test images of ImageNet with masks of their class.

Source of the layout: Gao et al., *Large-scale Unsupervised Semantic Segmentation* (arXiv 2106.03149) and its published
files. The paper measures five validation images of each of 910 classes.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int
from PIL import Image
from timm.data import ImageNetInfo

from classlens.data.dataset import ClassName, Dataset, ImageFiles, Masks, data_root, file_content, read_text_file
from classlens.data.layout import Layout
from classlens.data.layouts.folder import image_paths
from classlens.data.mask_files import turned_as
from classlens.errors import ClasslensError, suggestion

_FOLDER = "ImageNetS919"
_SPLITS = ("validation", "test")
_CATEGORIES = "data/categories/ImageNetS_categories_im919.txt"
_IGNORED = 1000
# Classes that the published research code excludes.
_EXCLUDED = frozenset(
    [
        *("n04356056", "n04355933", "n04493381", "n02808440", "n03642806"),
        *("n03832673", "n04008634", "n03773504", "n03887697", "n15075141"),
    ]
)
_PUBLISHED_PER_CLASS = 5


@dataclass(frozen=True)
class _Images:
    """Images and their masks, whose R + 256 · G is a class id; 0 is any other class, 1000 is ignored."""

    files: ImageFiles
    folder: Path | None
    ids: dict[str, int]
    has_masks: bool
    unknown_is_context: bool = True

    def picture(self, position: int) -> Image.Image:
        return self.files.picture(position)

    def content(self, position: int) -> int:
        mask = self._mask_path(position)
        return self.files.content(position) ^ (0 if mask is None else file_content(mask))

    def masks(self, position: int) -> Masks:
        """Both, from one reading of the file."""
        ids = self._class_ids(position)
        return (None, None) if ids is None else (ids == self.ids[self._wnid(position)], ids == _IGNORED)

    def _wnid(self, position: int) -> str:
        return self.files.paths[position].partition("/")[0]

    def _mask_path(self, position: int) -> Path | None:
        wnid, _, file = self.files.paths[position].partition("/")
        return None if self.folder is None else (self.folder / wnid / file).with_suffix(".png")

    def _class_ids(self, position: int) -> Int[np.ndarray, "height width"] | None:
        """The class id at each pixel; None without a mask."""
        path = self._mask_path(position)
        if path is None or not path.is_file():
            return None
        try:
            with Image.open(path) as image:
                colors = np.asarray(image.convert("RGB"), dtype=np.int64)
        except Exception:  # what Pillow's readers raise over a damaged file is not bounded
            raise ClasslensError(f"mask {str(path)!r} cannot be read: copy or download it again") from None
        ids: Int[np.ndarray, "height width"] = colors[..., 0] + 256 * colors[..., 1]
        return turned_as(self.files.root / self.files.paths[position], ids)


def read(spec: str, root: str, split: str | None) -> Dataset:
    """``ROOT/ImageNetS919/validation/<wnid>/*.JPEG`` with ``validation-segmentation``; ``test`` where asked for."""
    base = data_root(spec, root)
    folder = base / _FOLDER if (base / _FOLDER).is_dir() else base
    splits = [name for name in _SPLITS if (folder / name).is_dir()]
    if not splits:
        raise ClasslensError(
            f"data {spec!r} has no folder {_FOLDER}/validation or {_FOLDER}/test: give the folder that holds {_FOLDER}"
        )
    if split is not None and split not in splits:
        raise ClasslensError(
            f"data {spec!r} has no split {split!r}{suggestion(split, splits)}: it has {' and '.join(splits)}"
        )
    chosen = split or splits[0]
    wnids = sorted(
        entry.name for entry in os.scandir(folder / chosen) if entry.is_dir() and not entry.name.startswith(".")
    )
    names = _names(folder)
    paths: list[str] = []
    labels: list[int] = []
    for label, wnid in enumerate(wnids):
        class_paths = [f"{wnid}/{path}" for path in image_paths(folder / chosen / wnid, folder / chosen)]
        paths += class_paths
        labels += [label] * len(class_paths)
    masks = folder / f"{chosen}-segmentation"
    ids = _ids(spec, folder, wnids) if masks.is_dir() else {}
    images = _Images(ImageFiles(folder / chosen, tuple(paths)), masks if ids else None, ids, bool(ids))
    classes = [ClassName(names.get(wnid, wnid), wnid) for wnid in wnids]
    return Dataset.whole(spec, chosen, paths, labels, classes, images)


def published_sample(dataset: Dataset, per_class: int) -> Dataset | None:
    """The paper's images: those of its published list, else those that its rule selects."""
    if per_class != _PUBLISHED_PER_CLASS or dataset.split != "validation":
        return None
    assert isinstance(dataset.source, _Images)
    list_file = dataset.source.files.root.parent / "validation_stim_info.csv"
    if list_file.is_file():
        return replace(dataset.subset(_listed_images(dataset, list_file)), note="the published sample")
    chosen = []
    for label, name in enumerate(dataset.classes):
        images = np.flatnonzero(dataset.labels == label)
        if name.wnid not in _EXCLUDED and len(images) >= _PUBLISHED_PER_CLASS:
            chosen.append(images[:_PUBLISHED_PER_CLASS])
    indices = np.concatenate(chosen) if chosen else np.arange(0)
    return replace(dataset.subset(indices), note="not the published sample")


def _listed_images(dataset: Dataset, file: Path) -> list[int]:
    index_of = {os.path.splitext(os.path.basename(name))[0]: index for index, name in enumerate(dataset.names)}
    rows = list(csv.DictReader(read_text_file(file).splitlines(), restval=""))
    if not rows or "img_name" not in rows[0]:
        raise ClasslensError(f"list {str(file)!r} has no column img_name: give the published file, or take it away")
    names = [os.path.splitext(os.path.basename(row["img_name"]))[0] for row in rows]
    missing = [name for name in names if name not in index_of]
    if missing:
        raise ClasslensError(
            f"image {missing[0]!r} of the list {str(file)!r} is not in the data ({len(missing)} of {len(names)} are "
            "missing): complete the data, or take the list away"
        )
    return sorted({index_of[name] for name in names})


def _ids(spec: str, folder: Path, wnids: list[str]) -> dict[str, int]:
    """Class ids of the masks: line numbers of the classes in the published list, from 1."""
    file = next((path / _CATEGORIES for path in (folder.parent, folder) if (path / _CATEGORIES).is_file()), None)
    if file is None:
        raise ClasslensError(
            f"data {spec!r} has masks but not the file {_CATEGORIES}, which tells the classes of their colors: add it "
            "from https://github.com/LUSSeg/ImageNet-S"
        )
    lines = read_text_file(file).split()
    ids = {wnid: number for number, wnid in enumerate(lines, start=1)}
    missing = [wnid for wnid in wnids if wnid not in ids]
    if missing or len(lines) >= _IGNORED:
        raise ClasslensError(
            f"data {spec!r} has the class {missing[0] if missing else lines[_IGNORED - 1]!r}, which {str(file)!r} does "
            "not list: give the list that belongs to the data"
        )
    return ids


def _names(folder: Path) -> dict[str, str]:
    """Names of the classes by their wnids."""
    file = folder / "LOC_synset_mapping.txt"
    if file.is_file():
        lines = (line.partition(" ") for line in read_text_file(file).splitlines() if line.strip())
        return {wnid: name.strip() for wnid, _, name in lines}
    info = ImageNetInfo("imagenet-1k")
    return {info.index_to_label_name(index): info.index_to_description(index) for index in range(info.num_classes())}


LAYOUT = Layout(
    "ImageNet-S",
    "ROOT",
    "validation or test images of ImageNet with masks of their class, as published",
    read,
    published_sample,
)
