"""``cifar10:ROOT`` and ``cifar100:ROOT``: the published binary files, torchvision's copies, or folders of images."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torchvision import datasets

from classlens.core.arrays import Array
from classlens.data.dataset import ClassName, Dataset, data_root, read_text_file
from classlens.data.layout import Layout
from classlens.data.layouts import folder as image_folders
from classlens.errors import ClasslensError, suggestion

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE


@dataclass(frozen=True)
class _Kind:
    """Files of one of the two data sets. A row of a binary file holds labels, the last of which counts, and pixels."""

    binary: str
    files: Mapping[str, tuple[str, ...]]
    labels: int
    names: str
    torchvision: Any


_CIFAR10 = _Kind(
    "cifar-10-batches-bin",
    {"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)},
    1,
    "batches.meta.txt",
    datasets.CIFAR10,
)
_CIFAR100 = _Kind(
    "cifar-100-binary",
    {"train": ("train.bin",), "test": ("test.bin",)},
    2,
    "fine_label_names.txt",
    datasets.CIFAR100,
)


@dataclass(frozen=True, eq=False)
class _Pixels:
    """Images as one array ``[image, row, column, channel]``."""

    pixels: Array
    has_masks: bool = False

    def picture(self, position: int) -> Image.Image:
        return Image.fromarray(np.ascontiguousarray(self.pixels[position]))

    def masks(self, position: int) -> tuple[None, None]:
        return None, None

    def content(self, position: int) -> int:
        return zlib.crc32(self.pixels[position].tobytes())


def _read(kind: _Kind, spec: str, root: str, split: str | None) -> Dataset:
    """The binary files, torchvision's files or image folders in ROOT; ``split`` is ``test`` (default) or ``train``."""
    folder, chosen = data_root(spec, root), split or "test"
    if chosen not in kind.files:
        raise ClasslensError(
            f"data {spec!r} has no split {chosen!r}{suggestion(chosen, kind.files)}: give train or test"
        )
    for binary in (folder / kind.binary, folder):
        if all((binary / file).is_file() for file in kind.files[chosen]):
            return _binary(spec, kind, binary, chosen)
    pickled = kind.torchvision.base_folder
    if (folder / pickled).is_dir() or folder.name == pickled:
        return _torchvision(spec, kind, folder.parent if folder.name == pickled else folder, chosen)
    if (folder / chosen).is_dir():
        return image_folders.read(spec, root, chosen)
    raise ClasslensError(
        f"data {spec!r} holds neither {kind.binary}/{kind.files[chosen][0]} nor {kind.torchvision.base_folder} nor a "
        f"folder {chosen} of images: give the folder that the published archive was unpacked in"
    )


def _binary(spec: str, kind: _Kind, folder: Path, split: str) -> Dataset:
    row = kind.labels + _PIXELS
    rows = []
    for file in kind.files[split]:
        data = np.fromfile(folder / file, dtype=np.uint8)
        if len(data) == 0 or len(data) % row:
            raise ClasslensError(
                f"data {spec!r}: {file} holds {len(data)} bytes, which is no whole number of rows of {row}; unpack the "
                "published archive again"
            )
        rows.append(data.reshape(-1, row))
    joined = np.concatenate(rows)
    # Channel by channel in the file, row-major within each.
    pixels = joined[:, kind.labels :].reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    name_file = folder / kind.names
    if not name_file.is_file():
        raise ClasslensError(f"data {spec!r} lacks {kind.names}, the names of its classes: unpack the archive again")
    names = [line.strip() for line in read_text_file(name_file).splitlines() if line.strip()]
    return _array(spec, split, pixels, joined[:, kind.labels - 1].astype(np.int64), names)


def _torchvision(spec: str, kind: _Kind, folder: Path, split: str) -> Dataset:
    """Pickled files; torchvision compares their checksums before it opens them."""
    try:
        data = kind.torchvision(str(folder), train=split == "train", download=False)
    except RuntimeError:
        raise ClasslensError(
            f"data {spec!r}: files in {kind.torchvision.base_folder} are missing or not the published ones; unpack the "
            "archive again"
        ) from None
    return _array(spec, split, data.data, np.asarray(data.targets), list(data.classes))


def _array(spec: str, split: str, pixels: Array, labels: Array, names: list[str]) -> Dataset:
    if labels.max() >= len(names):
        raise ClasslensError(f"data {spec!r} has a class {labels.max()}, but {len(names)} names: unpack it again")
    width = max(5, len(str(len(pixels))))
    images = [f"{split}/{index:0{width}}" for index in range(len(pixels))]
    return Dataset.whole(spec, split, images, labels, [ClassName(name) for name in names], _Pixels(pixels))


_ABOUT = "the published binary files, torchvision's files, or folders of images"
CIFAR10 = Layout("CIFAR-10", "ROOT", _ABOUT, partial(_read, _CIFAR10))
CIFAR100 = Layout("CIFAR-100", "ROOT", _ABOUT, partial(_read, _CIFAR100))
