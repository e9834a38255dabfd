"""One process at work on a job: it measures partitions of images, and writes them or hands them over."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from classlens.core.arrays import Array
from classlens.data.loading import Batch, batch_ranges
from classlens.engine.task import Arrays, Job, Partition
from classlens.errors import ClasslensError
from classlens.store.store import Store


@dataclass(frozen=True, eq=False)
class BatchResult:
    """What a task computed for a batch; ``problems`` are reasons by index of unreadable images."""

    images: range
    arrays: Arrays
    problems: dict[int, str]

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
            yield from pool.map(reader.batch, batch_ranges(partition.images, self.job.batch_size))

    def measure(self, partition: Partition, batches: Iterator[Batch]) -> Iterator[BatchResult]:
        """The results of a partition, batch by batch; ends after the first unreadable image unless such are skipped."""
        for _ in batch_ranges(partition.images, self.job.batch_size):
            batch = next(batches)
            with _torch_threads(self.job.threads):
                arrays = self._measurer.measure(batch, partition.groups)
            yield BatchResult(batch.images, arrays, batch.problems)
            if batch.problems and not self.job.skip_bad:
                return

    def fill(self, partition: Partition, batches: Iterator[Batch], store: Store) -> dict[int, str]:
        """Measure a partition and write it; returns the problems of skipped images.

        Raises ClasslensError for an unreadable image, unless such are skipped; the images before it are written first.
        """
        results = list(self.measure(partition, batches))
        problems = {index: reason for result in results for index, reason in result.problems.items()}
        first = partition.images.start
        stop = partition.images.stop if self.job.skip_bad or not problems else min(problems)
        for name in partition.groups if stop > first else ():
            parts = [result.arrays[name] for result in results]
            values = {key: np.concatenate([part[key] for part in parts])[: stop - first] for key in parts[0]}
            store.write(name, first, values, problems if self.job.skip_bad else {})
        if problems and not self.job.skip_bad:
            raise ClasslensError(
                f"{problems[min(problems)]}; all before it is saved, and --skip-bad (skip_bad=True) leaves it out"
            )
        return problems


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
