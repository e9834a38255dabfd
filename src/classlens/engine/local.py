"""The local engine: partitions one after another in this process, images loaded ahead by worker processes."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence

from classlens.data.loading import Batch, load_batches
from classlens.engine.runner import BatchResult, Runner
from classlens.engine.task import Job, Partition, Steps
from classlens.store.store import Store


def fill(job: Job, partitions: Sequence[Partition], store: Store, workers: int | None) -> Steps:
    """Measure and write partitions."""
    if partitions:
        batches = _load_ahead(job, partitions, workers)  # before the runner, whose tables take seconds
        runner = Runner(job)
        for partition in partitions:
            yield from runner.fill(partition, batches, store)


def stream(job: Job, partitions: Sequence[Partition], workers: int | None) -> Generator[BatchResult, None, None]:
    """The results of partitions in order."""
    if partitions:
        batches = _load_ahead(job, partitions, workers)
        runner = Runner(job)
        for partition in partitions:
            yield from runner.measure(partition, batches)


def _load_ahead(job: Job, partitions: Sequence[Partition], workers: int | None) -> Iterator[Batch]:
    ranges = [images for partition in partitions for images in partition.ranges]
    # One process decodes for as many images as two cores measure; small runs do without.
    count = max(1, min(8, (os.cpu_count() or 1) // 2)) if workers is None else workers
    return load_batches(job.reader(), ranges, count if workers is not None or len(ranges) > 2 else 0)
