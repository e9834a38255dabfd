"""``folder:ROOT``: a folder for each class, images in it at any depth."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from classlens.data.dataset import ClassName, Dataset, Files, dataset, folder_of
from classlens.errors import ClasslensError, suggestion

EXTENSIONS = (*IMG_EXTENSIONS, ".gif", ".avif")
_WNID = re.compile(r"n\d{8}")


def read(spec: str, root: str, split: str | None) -> Dataset:
    """``ROOT/class/*.jpg``, or ``ROOT/split/class/*.jpg``; images that lie in ROOT itself have no labels."""
    folder = folder_of(spec, root)
    if split is not None:
        names = [entry.name for entry in os.scandir(folder) if entry.is_dir()]
        if split not in names:
            raise ClasslensError(
                f"data {spec!r} has no split {split!r}{suggestion(split, names)}: give a folder of {str(folder)!r}"
            )
        folder = folder / split
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    found = of_classes(spec, split, folder, classes)
    if not found.classes:
        loose = tuple(images_in(folder))
        return dataset(spec, split, loose, [-1] * len(loose), (), Files(folder, loose))
    return found


def of_classes(spec: str, split: str | None, folder: Path, classes: list[str]) -> Dataset:
    """Class folders in the order given; classes without images are left out."""
    paths: list[str] = []
    labels: list[int] = []
    kinds: list[ClassName] = []
    for name in classes:
        found = [f"{name}/{path}" for path in images_in(folder / name)]
        if found:
            labels += [len(kinds)] * len(found)
            paths += found
            kinds.append(ClassName(name, name if _WNID.fullmatch(name) else None))
    return dataset(spec, split, paths, labels, kinds, Files(folder, tuple(paths)))


def images_in(folder: Path) -> Iterator[str]:
    """Image files at any depth in order of their names, relative to the folder; hidden ones are passed over."""
    found = []
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = Path(place).relative_to(folder)
        found += [
            (inside / name).as_posix()
            for name in files
            if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
        ]
    yield from sorted(found)
