"""``voc:ROOT``: Pascal VOC, the photos with segmentation, labeled by the class that covers most of their pixels.

Source of the layout: Everingham et al., *The Pascal Visual Object Classes Challenge* and its published archives, as
torchvision unpacks them.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from classlens.data.dataset import ClassName, Dataset, ImageFiles, data_root, read_text_file
from classlens.data.layout import Layout
from classlens.data.mask_files import MaskFiles, read_values
from classlens.data.mask_values import MaskValues
from classlens.errors import ClasslensError, suggestion

# In the order of their values in a mask, from 1; 0 is the background.
_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_VALUES = range(1 + len(_CLASSES))
_VOID = 255
"""The value of the border around objects, and of objects too hard to outline: the mask leaves it open."""
_LISTS = "ImageSets/Segmentation"
_SPLITS = ("val", "train", "trainval")


def read(spec: str, root: str, split: str | None) -> Dataset:
    """``ROOT/VOCdevkit/VOC2012``, or the newest year there; ``split`` is ``val`` (default), ``train`` or ``trainval``.

    The mask of a photo shows all objects of its class. Every mask is read once for the labels.
    """
    base, chosen = data_root(spec, root), split or _SPLITS[0]
    years = [base, *sorted([*base.glob("VOC2*"), *base.glob("VOCdevkit/VOC2*")], key=lambda year: year.name)]
    folder = next((year for year in reversed(years) if (year / _LISTS).is_dir()), None)
    if folder is None:
        raise ClasslensError(
            f"data {spec!r} has no folder VOCdevkit/VOC2012/{_LISTS}: give the folder that the published archive was "
            "unpacked in"
        )
    lists = [name for name in _SPLITS if (folder / _LISTS / f"{name}.txt").is_file()]
    if chosen not in lists:
        raise ClasslensError(
            f"data {spec!r} has no split {chosen!r}{suggestion(chosen, lists)}: it has {', '.join(lists) or 'none'}"
        )
    listed = sorted(read_text_file(folder / _LISTS / f"{chosen}.txt").split())
    masks = [folder / "SegmentationClass" / f"{name}.png" for name in listed]
    with ThreadPoolExecutor() as pool:
        labels = list(pool.map(_label, masks))
    shown = [index for index, label in enumerate(labels) if label is not None]
    photos = ImageFiles(folder, tuple(f"JPEGImages/{listed[index]}.jpg" for index in shown))
    files = {position: masks[index] for position, index in enumerate(shown)}
    kept = [label for label in labels if label is not None]
    source = MaskFiles(photos, files, {position: _meaning(label) for position, label in enumerate(kept)})
    without = len(listed) - len(shown)
    note = f"photos without an object are left out: {without:,}" if without else ""
    return Dataset.whole(spec, chosen, photos.paths, kept, [ClassName(name) for name in _CLASSES], source, note)


def _label(mask: Path) -> int | None:
    """The class of most pixels, the first of equals; None without an object, -1 for a mask that cannot be read."""
    try:
        values = read_values(mask)
    except ClasslensError:
        return -1  # reported where the photo is read
    counts = np.bincount(values[values < len(_VALUES)].ravel(), minlength=len(_VALUES))[1:]
    return int(counts.argmax()) if counts.any() else None


def _meaning(label: int) -> MaskValues:
    value = max(1, label + 1)
    return MaskValues(object=(value,), ignore=(_VOID,), background=tuple(each for each in _VALUES if each != value))


LAYOUT = Layout(
    "Pascal VOC",
    "ROOT",
    "photos with segmentation, labeled by the class of most pixels, as torchvision unpacks them",
    read,
)
