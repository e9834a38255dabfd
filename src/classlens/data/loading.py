"""Images as batches of pixels, decoded beside the model in processes of their own."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from classlens.data.dataset import Dataset
from classlens.data.masks import token_mask
from classlens.errors import ClasslensError
from classlens.models.transforms import Preprocessing
from classlens.store.schema import Array

# Of <sys/prctl.h>: the signal that a process gets when its parent ends.
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, eq=False)
class Batch:
    """Some images in a row. One that cannot be read is black and has a problem, so that the others keep their place."""

    images: range
    # An array, which goes from process to process through a pipe: tensors would go through shared memory, of which
    # containers have little.
    array: Array
    shows: Array
    """int8 ``[image, place]``: 1 where the mask shows the class, -1 where that is not known."""
    problems: dict[int, str] = field(default_factory=dict)

    @property
    def pixels(self) -> Tensor:
        return torch.from_numpy(self.array)


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads and prepares images of a data set; whole in every worker process, on every machine."""

    dataset: Dataset
    preprocessing: Preprocessing
    shape: tuple[int, ...]
    """Of the pixels of one image."""
    grid: tuple[int, int]
    """Of the places at which the mask is looked at, such as tokens, in row-major order."""
    ignores: bool = False
    """Whether what a mask leaves open is not known, in place of not the class."""

    def batch(self, images: range) -> Batch:
        pixels = np.zeros((len(images), *self.shape), dtype=np.float32)
        shows = np.full((len(images), self.grid[0] * self.grid[1]), -1, dtype=np.int8)
        problems = {}
        for place, index in enumerate(images):
            try:
                pixels[place] = self._pixels(index).numpy()
                self._mask(index, shows[place])
            except ClasslensError as error:
                pixels[place] = 0
                problems[index] = str(error)
        return Batch(images, pixels, shows, problems)

    def _mask(self, index: int, shows: Array) -> None:
        mask = self.dataset.mask(index) if self.dataset.has_masks else None
        if mask is None:
            return
        shows[:] = token_mask(mask, self.preprocessing.transform, self.grid)
        ignored = self.dataset.ignored(index) if self.ignores else None
        if ignored is not None:
            shows[token_mask(ignored, self.preprocessing.transform, self.grid)] = -1

    def _pixels(self, index: int) -> Tensor:
        name = self.dataset.names[index]
        pixels = self.preprocessing(self.dataset.picture(index), name)
        if tuple(pixels.shape) != self.shape:
            raise ClasslensError(
                f"the transform makes {list(pixels.shape)} of image {name!r}, but {list(self.shape)} of others: images "
                "measured together need one size"
            )
        return pixels


class _Batches(TorchDataset[Batch]):
    def __init__(self, reader: Reader, batches: Sequence[range]) -> None:
        self._reader, self._batches = reader, batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> Batch:
        return self._reader.batch(self._batches[number])


def _itself(batch: Any) -> Any:
    return batch


def batches(reader: Reader, wanted: Sequence[range], workers: int) -> Iterator[Batch]:
    """The batches in the order wanted, read ahead by worker processes (none: read when asked for)."""
    made: Any = _Batches(reader, wanted)
    processes = min(workers, len(wanted))
    return iter(
        DataLoader(
            made,
            batch_size=None,
            collate_fn=_itself,
            num_workers=processes,
            worker_init_fn=partial(_end_with, os.getpid()) if processes else None,
        )
    )


def _end_with(parent: int, _: int) -> None:
    """Let a worker process end when the one it works for is killed: it could wait for ever to hand its batch over."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # already gone
            os._exit(1)


def split(unit: range, batch_size: int) -> list[range]:
    """The batches of a unit of work: fixed by image index, so that a run that was stopped makes the same ones."""
    return [unit[start : start + batch_size] for start in range(0, len(unit), batch_size)]
