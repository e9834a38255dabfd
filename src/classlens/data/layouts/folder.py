"""``folder:ROOT``: a folder for each class, images in it at any depth."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from classlens.data.dataset import ClassName, Dataset, ImageFiles, data_root
from classlens.data.layout import Layout
from classlens.errors import ClasslensError, suggestion

EXTENSIONS = (*IMG_EXTENSIONS, ".gif", ".avif")
_WNID = re.compile(r"n\d{8}")


def read(spec: str, root: str, split: str | None) -> Dataset:
    """``ROOT/class/*.jpg``, or ``ROOT/split/class/*.jpg``; images directly in ROOT have no labels."""
    folder = data_root(spec, root)
    if split is not None:
        names = [entry.name for entry in os.scandir(folder) if entry.is_dir()]
        if split not in names:
            raise ClasslensError(
                f"data {spec!r} has no split {split!r}{suggestion(split, names)}: give a folder of {str(folder)!r}"
            )
        folder = folder / split
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    dataset = read_class_folders(spec, split, folder, classes)
    if not dataset.classes:
        paths = tuple(image_paths(folder))
        return Dataset.whole(spec, split, paths, [-1] * len(paths), (), ImageFiles(folder, paths))
    return dataset


def read_class_folders(spec: str, split: str | None, folder: Path, classes: list[str]) -> Dataset:
    """The images of class folders, in the order given; classes without images are left out."""
    paths: list[str] = []
    labels: list[int] = []
    class_names: list[ClassName] = []
    for name in classes:
        class_paths = [f"{name}/{path}" for path in image_paths(folder / name, folder)]
        if class_paths:
            labels += [len(class_names)] * len(class_paths)
            paths += class_paths
            class_names.append(ClassName(name, name if _WNID.fullmatch(name) else None))
    return Dataset.whole(spec, split, paths, labels, class_names, ImageFiles(folder, tuple(paths)))


def image_paths(folder: Path, root: Path | None = None) -> Iterator[str]:
    """Paths of image files at any depth, sorted and relative to the folder; hidden files are left out.

    Links are followed, but no folder is entered twice, and none that ``folder`` or ``root`` lies in: a link upwards
    would give the images of all classes to one.
    """
    paths: list[str] = []
    inside = [folder.resolve()] if root is None else [folder.resolve(), root.resolve() / "class"]
    outside = {parent for path in inside for parent in path.parents}
    starts, entered = [folder], set[Path]()
    for start in starts:  # grows by the links; what lies in the folder itself goes first
        for parent, subfolders, files in os.walk(start):
            place, real = Path(parent), Path(parent).resolve()
            if real in entered or real in outside:
                subfolders.clear()
                continue
            entered.add(real)
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            starts += [place / name for name in subfolders if (place / name).is_symlink()]
            paths += [
                (place.relative_to(folder) / name).as_posix()
                for name in files
                if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
            ]
    yield from sorted(paths)


LAYOUT = Layout("Image folders", "ROOT", "one folder of images per class, ROOT/class/*.jpg", read)
