"""Maps that another tool stored: an array of all images, or a folder with a file of each image."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from classlens.core.arrays import Array
from classlens.errors import ClasslensError, cause

_SUFFIX = ".npy"


@dataclass(frozen=True, eq=False)
class MapArray:
    """Maps of all images in one array ``[image, row, column]``, in the order of the images."""

    name: str
    values: Array

    @cached_property
    def digest(self) -> str:
        shape = repr((self.values.shape, self.values.dtype.str)).encode()
        return hashlib.sha256(shape + np.ascontiguousarray(self.values).tobytes()).hexdigest()

    def map(self, image: int, channels: int) -> Float[Tensor, "row column"]:
        return _plane(self.values[image], f"map {image} of {self.name!r}", channels)


@dataclass(frozen=True, eq=False)
class MapFolder:
    """A folder of ``.npy`` files whose paths are those of the images: ``cat/1.npy`` or ``cat/1.png.npy``.

    Args:
        root: the folder.
        images: relative path of each image.
    """

    root: Path
    images: tuple[str, ...]

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The file of each image; it need not exist. Raises ClasslensError where two images share one."""
        if not self.root.is_dir():
            raise ClasslensError(f"{str(self.root)!r} is not a folder: give the folder that holds the maps")
        files = tuple(map(self._file, self.images))
        image_of: dict[Path, str] = {}
        for image, file in zip(self.images, files, strict=True):
            if file in image_of:
                raise ClasslensError(
                    f"images {image_of[file]!r} and {image!r} have one map, {str(file)!r}: give each its own, such as "
                    f"{PurePosixPath(image).name + _SUFFIX!r}, and images of one name in the folder that holds both"
                )
            image_of[file] = image
        return files

    def _file(self, image: str) -> Path:
        path = PurePosixPath(image)
        if path.is_absolute() or ".." in path.parts:
            raise ClasslensError(
                f"image {image!r} lies outside of the folder of images, so no folder of maps has its path"
            )
        whole = self.root / f"{path}{_SUFFIX}"
        return whole if whole.is_file() else self.root / path.with_suffix(_SUFFIX)

    @cached_property
    def digest(self) -> str:
        """Digest of the content of all files."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(hashlib.sha256(file.read_bytes()).digest() if file.is_file() else b"none")
        return digest.hexdigest()

    def map(self, image: int, channels: int) -> Float[Tensor, "row column"]:
        file = self.files[image]
        if not file.is_file():
            raise ClasslensError(
                f"map {str(file)!r} does not exist: expected a map of image {self.images[image]!r}; add it, or leave "
                "such images out by --skip-bad (skip_bad=True)"
            )
        try:
            values: Any = np.load(file, allow_pickle=False)
        except Exception as error:
            raise ClasslensError(
                f"map {str(file)!r} cannot be read ({cause(error)}): write it with numpy.save"
            ) from None
        return _plane(values, f"map {str(file)!r}", channels)


def _plane(values: Any, name: str, channels: int) -> Float[Tensor, "row column"]:
    """One map; values for each channel of the pixels are summed."""
    if not isinstance(values, np.ndarray):
        raise ClasslensError(f"{name} holds several arrays: write one with numpy.save")
    numbers = values.dtype.kind in "biuf"
    if numbers and values.ndim == 3 and len(values) in (1, channels):
        values = values.sum(axis=0, dtype=np.float64)
    if not numbers or values.ndim != 2 or not values.size:
        raise ClasslensError(
            f"{name} is an array of {values.dtype} {list(values.shape)}: expected numbers [row, column], or "
            f"[{channels}, row, column] for each channel of the pixels"
        )
    if not np.isfinite(values).all():
        raise ClasslensError(f"{name} has values that are not finite, which have no order: write finite ones")
    return torch.from_numpy(values.astype(np.float64))
