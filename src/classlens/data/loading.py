"""Batches of pixels, decoded beside the model in worker processes."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from classlens.core.arrays import Array
from classlens.data.dataset import Dataset
from classlens.data.masks import token_mask
from classlens.errors import ClasslensError, cause
from classlens.models.geometry import input_window
from classlens.models.transforms import Preprocessing

# <sys/prctl.h>: the signal that a process receives when its parent ends.
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, eq=False)
class Batch:
    """Consecutive images of a data set. An unreadable image is black and has an entry in ``problems``.

    ``shows_class``: int8 ``[image, mask position]``, 1 where the mask shows the class, 0 where it does not, -1 without
    a mask. ``content``: int64 ``[image]``, which tells versions of the images apart. ``mask_problems``: why a mask
    cannot be used; its image counts as one without a mask. ``frames``: float32 ``[image, side]``, the borders of the
    model's input in pixels of the upright picture: left, top, right, bottom; NaN where the transform does not tell.
    """

    images: range
    # An array, because it travels between processes through a pipe: tensors would take shared memory, which is scarce
    # in containers.
    array: Array
    shows_class: Array
    problems: dict[int, str]
    content: Array
    frames: Array
    mask_problems: dict[int, str] = field(default_factory=dict)

    @property
    def pixels(self) -> Tensor:
        return torch.from_numpy(self.array)

    @property
    def readable(self) -> Array:
        """bool ``[image]``: False for images with a problem."""
        return np.array([index not in self.problems for index in self.images])


@dataclass(frozen=True, eq=False)
class ImageReader:
    """Reads and preprocesses images of a data set; each worker process and machine has its own copy.

    Args:
        dataset: the images.
        preprocessing: from a picture to pixels.
        shape: shape of the pixels of one image.
        mask_grid: rows and columns of the positions at which masks are sampled, such as the token grid; None for no
            masks.
        ignore_unknown: mark positions that the mask leaves open with -1 in place of 0.
    """

    dataset: Dataset
    preprocessing: Preprocessing
    shape: tuple[int, ...]
    mask_grid: tuple[int, int] | None
    ignore_unknown: bool = False

    def batch(self, images: range) -> Batch:
        """The pixels and masks of some images."""
        pixels = np.zeros((len(images), *self.shape), dtype=np.float32)
        shows_class = np.full((len(images), int(np.prod(self.mask_grid or 1))), -1, dtype=np.int8)
        frames = np.full((len(images), 4), np.nan, dtype=np.float32)
        problems, mask_problems = dict[int, str](), dict[int, str]()
        for row, index in enumerate(images):
            try:
                picture = self.dataset.picture(index)
                pixels[row] = self._pixels(index, picture).numpy()
                window = input_window((picture.height, picture.width), self.preprocessing.transform)
                frames[row] = np.nan if window is None else window.frame
            except ClasslensError as error:
                pixels[row] = 0
                problems[index] = str(error)
                continue
            try:
                self._read_mask(index, picture, shows_class[row])
            except ClasslensError as error:
                mask_problems[index] = str(error)
        positions = self.dataset.positions[images.start : images.stop]
        content = [self.dataset.source.content(int(position)) for position in positions]  # right after decoding: cached
        contents = np.array(content, dtype=np.int64)
        return Batch(images, pixels, shows_class, problems, contents, frames, mask_problems)

    def _read_mask(self, index: int, picture: Image.Image, shows_class: Array) -> None:
        if self.mask_grid is None or not self.dataset.has_masks:
            return
        mask, ignored = self.dataset.source.masks(int(self.dataset.positions[index]))
        if mask is None:
            return
        size = (picture.height, picture.width)
        if mask.shape != size:
            raise ClasslensError(
                f"the mask of image {self.dataset.names[index]!r} is {mask.shape[0]}×{mask.shape[1]} pixels, and the "
                f"upright image {size[0]}×{size[1]} (height × width): expected one size; give the mask of this image"
            )
        shows_class[:] = token_mask(mask, self.preprocessing.transform, self.mask_grid)
        if ignored is not None and self.ignore_unknown:
            shows_class[token_mask(ignored, self.preprocessing.transform, self.mask_grid)] = -1

    def _pixels(self, index: int, picture: Image.Image) -> Tensor:
        name = self.dataset.names[index]
        pixels = self.preprocessing(picture, name)
        if tuple(pixels.shape) != self.shape:
            raise ClasslensError(
                f"the transform makes {list(pixels.shape)} of image {name!r}, but {list(self.shape)} of others: images "
                "measured together need one size"
            )
        return pixels


class _Batches(TorchDataset[Batch]):
    def __init__(self, reader: ImageReader, ranges: Sequence[range]) -> None:
        self._reader, self._ranges = reader, ranges

    def __len__(self) -> int:
        return len(self._ranges)

    def __getitem__(self, number: int) -> Batch:
        return self._reader.batch(self._ranges[number])


def _identity(batch: Any) -> Any:
    return batch


def load_batches(reader: ImageReader, ranges: Sequence[range], workers: int) -> Iterator[Batch]:
    """The batches of these image ranges in order, read ahead by ``workers`` processes; 0 reads on demand.

    Where this process cannot have others that decode, it reads on demand, and says so.
    """
    batches: Any = _Batches(reader, ranges)
    processes = min(workers, len(ranges))
    obstacle = _obstacle(batches) if processes else None
    if obstacle is not None:
        _say_once(f"images are decoded in this process, which takes longer: {obstacle}")
        processes = 0
    with _hidden_script():
        return iter(
            DataLoader(
                batches,
                batch_size=None,
                collate_fn=_identity,
                num_workers=processes,
                worker_init_fn=_end_with_parent if processes else None,
            )
        )


def _obstacle(batches: object) -> str | None:
    """Why worker processes cannot be had; None where they can."""
    if multiprocessing.current_process().daemon:
        return "a daemonic process, such as one of multiprocessing.Pool, may start no others"
    method = multiprocessing.get_start_method()
    if method == "fork":
        return None
    try:
        script = b"__main__" in pickle.dumps(batches)
    except Exception as error:  # pickle raises almost anything, and so does a user's class
        return f"a transform or data set cannot be sent to a process that was started by {method} ({cause(error)})"
    return "a transform or data set is defined in the script that runs, not in a module" if script else None


@cache
def _say_once(text: str) -> None:
    logging.getLogger("classlens").warning(text)


@contextmanager
def _hidden_script() -> Iterator[None]:
    """Keep processes that are started anew from running the script that runs, which may lack its guard."""
    main = sys.modules["__main__"]
    spec, file = main.__spec__, vars(main).pop("__file__", None)
    main.__spec__ = None
    try:
        yield
    finally:
        main.__spec__ = spec
        if file is not None:
            main.__file__ = file


def _end_with_parent(_: int) -> None:
    """End a worker process when its parent is killed; it could otherwise wait forever to hand over its batch."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            os._exit(1)


def batch_ranges(unit: range, batch_size: int) -> list[range]:
    """The batches of a unit of work, fixed by image index, so that a resumed run makes the same ones."""
    return [unit[start : start + batch_size] for start in range(0, len(unit), batch_size)]
