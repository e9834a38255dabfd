"""One process at work on a job: it measures partitions of images, and writes them or hands them over."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from classlens.core.arrays import Array
from classlens.data.loading import Batch
from classlens.engine.task import TOTALS, Arrays, Job, Partition, Step, Steps
from classlens.errors import ClasslensError
from classlens.forward.isolation import require_threads
from classlens.store.store import Store

SAVE_SECONDS = 15.0
"""Least time between two writes within a partition: a shard is written whole each time."""


@dataclass(frozen=True, eq=False)
class BatchResult:
    """Values that a task computed for a batch; ``problems`` are reasons by index of unreadable images.

    ``content`` is that of the batch.
    """

    images: range
    arrays: Arrays
    problems: dict[int, str]
    content: Array

    @property
    def readable(self) -> Array:
        """bool ``[image]``: False for images with a problem."""
        return np.array([index not in self.problems for index in self.images])


class Runner:
    """Measures partitions of a job in this process."""

    def __init__(self, job: Job) -> None:
        self.job = job
        with _torch_threads(job.threads):
            self._measurer = job.task.measurer(job)

    def read(self, partition: Partition) -> Iterator[Batch]:
        """The batches of a partition, loaded by threads of this process."""
        reader = self.job.reader()
        with ThreadPoolExecutor() as pool:
            yield from pool.map(reader.batch, partition.ranges)

    def measure(self, partition: Partition, batches: Iterator[Batch]) -> Iterator[BatchResult]:
        """The results of a partition, batch by batch; ends after the first unreadable image unless such are skipped."""
        for _, groups in partition.batches:
            batch = next(batches)
            yield BatchResult(batch.images, dict(self._measured(batch, groups)), batch.problems, batch.content)
            if batch.problems and not self.job.skip_bad:
                return

    def fill(self, partition: Partition, batches: Iterator[Batch], store: Store) -> Steps:
        """Measure a partition and write it, from time to time and at its end, also where that comes early.

        Raises ClasslensError for an unreadable image or mask, unless such are skipped; the images before it are written
        first.
        """
        with _Unsaved(store) as unsaved:
            for images, groups in partition.batches:
                batch = next(batches)
                stops = {} if self.job.skip_bad else batch.mask_problems | batch.problems
                count = min(stops) - images.start if stops else len(images)
                skipped = dict[int, str]()
                number = 0
                for group, arrays in self._measured(batch, groups):
                    if group == TOTALS:
                        if not stops:
                            yield Step(0, 0, len(images) * number / len(groups), (arrays,))
                        continue
                    number += 1
                    finished = {name: values[:count] for name, values in arrays.items()}
                    problems = {} if stops else self._problems(batch, group)
                    skipped |= problems
                    unsaved.add(group, _Part(images[:count], finished, problems, batch.content[:count]))
                    if number < len(groups):
                        yield Step(0, 0, len(images) * number / len(groups))
                if count < len(images):
                    without = "leaves it out" if images[count] in batch.problems else "goes on without this mask"
                    raise ClasslensError(
                        f"{stops[images[count]]}; all before it is saved, and --skip-bad (skip_bad=True) {without}"
                    )
                yield Step(len(images), len(skipped))

    def _problems(self, batch: Batch, group: str) -> dict[int, str]:
        """Why a group has no values of some images; what an image is without its mask, other groups measure."""
        return batch.mask_problems | batch.problems if self.job.task.needs_masks(group) else batch.problems

    def _measured(self, batch: Batch, groups: Sequence[str]) -> Iterator[tuple[str, Any]]:
        """Values that the measurer yields; between two groups torch has the threads of the caller."""
        measured = self._measurer.measure(batch, groups)
        while True:
            with _torch_threads(self.job.threads):
                result = next(measured, None)
            if result is None:
                return
            yield result


class _Unsaved:
    """Arrays on their way to a store, which are written together when enough time has passed, and at the end."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._parts: dict[str, list[_Part]] = {}
        self._saved = time.monotonic()

    def __enter__(self) -> _Unsaved:
        return self

    def __exit__(self, *_: object) -> None:
        self._save()

    def add(self, group: str, part: _Part) -> None:
        """Take the arrays of some images, which follow each other within a group."""
        if not part.images:
            return
        parts = self._parts.setdefault(group, [])
        if parts and parts[-1].images.stop != part.images.start:  # an earlier run measured what lies between
            self._save_group(group)
            parts = self._parts.setdefault(group, [])
        parts.append(part)
        if time.monotonic() - self._saved >= SAVE_SECONDS:
            self._save()

    def _save(self) -> None:
        for group in list(self._parts):
            self._save_group(group)
        self._saved = time.monotonic()

    def _save_group(self, group: str) -> None:
        parts = self._parts[group]
        values = {key: np.concatenate([part.arrays[key] for part in parts]) for key in parts[0].arrays}
        problems = {index: reason for part in parts for index, reason in part.problems.items()}
        content = np.concatenate([part.content for part in parts])
        self._store.write(group, parts[0].images.start, values, problems, content)
        del self._parts[group]  # an interrupt of the writing is followed by another try


class _Part(NamedTuple):
    images: range
    arrays: Mapping[str, Array]
    problems: Mapping[int, str]
    content: Array


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    require_threads(count)
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
