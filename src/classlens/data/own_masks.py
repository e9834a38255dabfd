"""Masks of one's own beside the images of any layout: files of the same relative path in another folder."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path, PurePosixPath

from classlens.data.dataset import Dataset
from classlens.data.mask_files import SUFFIXES, MaskFiles
from classlens.data.mask_values import parse_mask_values
from classlens.errors import ClasslensError


def with_masks(dataset: Dataset, folder: str | os.PathLike[str], mask_values: str | None) -> Dataset:
    """The data set with masks of a folder in place of any of its own.

    The mask of ``class/photo.jpg`` is ``FOLDER/class/photo.png``, ``.bmp`` or ``.npy``, or such a file in
    ``FOLDER/split``. Raises ClasslensError where no image has a mask, or one has two; an image without a mask is an
    error when its mask is read.
    """
    values, root = parse_mask_values(mask_values), Path(folder)
    if not root.is_dir():
        raise ClasslensError(f"masks {str(root)!r} are no folder: give the folder that holds the masks of the images")
    places = [root, root / dataset.split] if dataset.split and (root / dataset.split).is_dir() else [root]
    found, image_of = _Folders(), dict[Path, str]()
    files: dict[int, Path] = {}
    missing: list[int] = []
    for name, position in zip(dataset.names, dataset.positions.tolist(), strict=True):
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ClasslensError(
                f"image {name!r} lies outside of the root of data {dataset.spec!r}, so no folder of masks has its "
                "path: give paths inside the root"
            )
        masks = next(filter(None, (found.masks(place / path) for place in places)), [])
        if len(masks) > 1:
            raise ClasslensError(
                f"image {name!r} has the masks {str(masks[0])!r} and {masks[1].name!r}: keep one of them in the folder"
            )
        for mask in masks:
            if (other := image_of.setdefault(mask, name)) != name:
                raise ClasslensError(
                    f"images {other!r} and {name!r} have one mask, {str(mask)!r}: give each its own, such as "
                    f"{path.name + SUFFIXES[0]!r}"
                )
        files[position] = masks[0] if masks else (root / path).with_suffix(SUFFIXES[0])
        missing += [] if masks else [position]
    if files and len(missing) == len(files):
        raise ClasslensError(
            f"masks {str(root)!r} hold none of any image: expected {str(files[int(dataset.positions[0])])!r} (or .bmp, "
            f".npy) for {dataset.names[0]!r}; give the folder whose paths are those of the images"
        )
    source = MaskFiles(dataset.source, files, {None: values}, frozenset(missing))
    return replace(dataset, source=source, masks=str(values) or "two values")


class _Folders:
    """The masks in each folder by the name of their image, listed once."""

    def __init__(self) -> None:
        self._listed: dict[Path, dict[str, list[Path]]] = {}

    def masks(self, image: Path) -> list[Path]:
        """Masks named as an image, or as the image without its ending."""
        if image.parent not in self._listed:
            self._listed[image.parent] = self._list(image.parent)
        by_name = self._listed[image.parent]
        return by_name.get(image.name) or by_name.get(image.stem) or []

    def _list(self, folder: Path) -> dict[str, list[Path]]:
        by_name: dict[str, list[Path]] = {}
        for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in SUFFIXES:
                by_name.setdefault(stem, []).append(folder / name)
        return by_name
