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
from jaxtyping import Bool, Int
from PIL import Image
from timm.data import ImageNetInfo

from classlens.data.dataset import ClassName, Dataset, Files, dataset, folder_of, text_of
from classlens.data.layouts.folder import images_in
from classlens.errors import ClasslensError

_FOLDER = "ImageNetS919"
_SPLITS = ("validation", "test")
_CATEGORIES = "data/categories/ImageNetS_categories_im919.txt"
_IGNORED = 1000
# Classes that the published research code leaves out.
_LEFT_OUT = frozenset(
    [
        *("n04356056", "n04355933", "n04493381", "n02808440", "n03642806"),
        *("n03832673", "n04008634", "n03773504", "n03887697", "n15075141"),
    ]
)
_PUBLISHED = 5


@dataclass(frozen=True)
class _Images:
    """Images with masks beside them: R + 256 · G is a class id, 0 other, 1000 to be ignored."""

    files: Files
    masks: Path | None
    ids: dict[str, int]
    has_masks: bool

    def picture(self, place: int) -> Image.Image:
        return self.files.picture(place)

    def size(self, place: int) -> int:
        return self.files.size(place)

    def mask(self, place: int) -> Bool[np.ndarray, "height width"] | None:
        ids = self._seen(place)
        return None if ids is None else ids == self.ids[self._wnid(place)]

    def ignored(self, place: int) -> Bool[np.ndarray, "height width"] | None:
        ids = self._seen(place)
        return None if ids is None else ids == _IGNORED

    def _wnid(self, place: int) -> str:
        return self.files.paths[place].partition("/")[0]

    def _seen(self, place: int) -> Int[np.ndarray, "height width"] | None:
        """The class id at each pixel; None without a mask."""
        wnid, _, file = self.files.paths[place].partition("/")
        if self.masks is None:
            return None
        path = (self.masks / wnid / file).with_suffix(".png")
        if not path.is_file():
            return None
        try:
            with Image.open(path) as image:
                colors = np.asarray(image.convert("RGB"), dtype=np.int64)
        except Exception:  # what Pillow's readers raise over a damaged file is not bounded
            raise ClasslensError(f"mask {str(path)!r} cannot be read: copy or download it again") from None
        ids: Int[np.ndarray, "height width"] = colors[..., 0] + 256 * colors[..., 1]
        return ids


def read(spec: str, root: str, split: str | None) -> Dataset:
    """``ROOT/ImageNetS919/validation/<wnid>/*.JPEG`` with ``validation-segmentation``; ``test`` where asked for."""
    given = folder_of(spec, root)
    folder = given / _FOLDER if (given / _FOLDER).is_dir() else given
    there = [name for name in _SPLITS if (folder / name).is_dir()]
    if not there:
        raise ClasslensError(
            f"data {spec!r} has no folder {_FOLDER}/validation or {_FOLDER}/test: give the folder that holds {_FOLDER}"
        )
    if split is not None and split not in there:
        raise ClasslensError(f"data {spec!r} has no split {split!r}: it has {' and '.join(there)}")
    chosen = split or there[0]
    wnids = sorted(
        entry.name for entry in os.scandir(folder / chosen) if entry.is_dir() and not entry.name.startswith(".")
    )
    names = _names(folder)
    paths: list[str] = []
    labels: list[int] = []
    for label, wnid in enumerate(wnids):
        found = [f"{wnid}/{path}" for path in images_in(folder / chosen / wnid)]
        paths += found
        labels += [label] * len(found)
    masks = folder / f"{chosen}-segmentation"
    ids = _ids(spec, folder, wnids) if masks.is_dir() else {}
    images = _Images(Files(folder / chosen, tuple(paths)), masks if ids else None, ids, bool(ids))
    classes = [ClassName(names.get(wnid, wnid), wnid) for wnid in wnids]
    return dataset(spec, chosen, paths, labels, classes, images)


def published(found: Dataset, per_class: int) -> Dataset | None:
    """The paper's images: those of its list where that is there; else its rule, which gives other ones."""
    if per_class != _PUBLISHED or found.split != "validation":
        return None
    assert isinstance(found.source, _Images)
    listed = found.source.files.root.parent / "validation_stim_info.csv"
    if listed.is_file():
        return replace(found.subset(_listed(found, listed)), note="the published sample")
    chosen = []
    for label, kind in enumerate(found.classes):
        images = np.flatnonzero(found.labels == label)
        if kind.wnid not in _LEFT_OUT and len(images) >= _PUBLISHED:
            chosen.append(images[:_PUBLISHED])
    indices = np.concatenate(chosen) if chosen else np.arange(0)
    return replace(found.subset(indices), note="not the published sample")


def _listed(found: Dataset, file: Path) -> list[int]:
    place = {os.path.splitext(os.path.basename(name))[0]: index for index, name in enumerate(found.names)}
    rows = list(csv.DictReader(text_of(file).splitlines(), restval=""))
    if not rows or "img_name" not in rows[0]:
        raise ClasslensError(f"list {str(file)!r} has no column img_name: give the published file, or take it away")
    names = [os.path.splitext(os.path.basename(row["img_name"]))[0] for row in rows]
    missing = [name for name in names if name not in place]
    if missing:
        raise ClasslensError(
            f"image {missing[0]!r} of the list {str(file)!r} is not in the data ({len(missing)} of {len(names)} are "
            "missing): complete the data, or take the list away"
        )
    return sorted({place[name] for name in names})


def _ids(spec: str, folder: Path, wnids: list[str]) -> dict[str, int]:
    """Class ids of the masks: the line of each class in the published list, from 1."""
    file = next((place / _CATEGORIES for place in (folder.parent, folder) if (place / _CATEGORIES).is_file()), None)
    if file is None:
        raise ClasslensError(
            f"data {spec!r} has masks but not the file {_CATEGORIES}, which tells the classes of their colors: add it "
            "from https://github.com/LUSSeg/ImageNet-S"
        )
    lines = text_of(file).split()
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
        lines = (line.partition(" ") for line in text_of(file).splitlines() if line.strip())
        return {wnid: name.strip() for wnid, _, name in lines}
    info = ImageNetInfo("imagenet-1k")
    return {info.index_to_label_name(index): info.index_to_description(index) for index in range(info.num_classes())}
