"""The local engine: units one after another in this process, images loaded ahead by worker processes."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence

from classlens.data.loading import Batch, batch_ranges, load_batches
from classlens.engine.task import FinishedUnits, Job, Unit
from classlens.engine.worker import BatchResult, Worker
from classlens.store.store import Store


def fill(job: Job, units: Sequence[Unit], store: Store, workers: int | None) -> FinishedUnits:
    """Measure and write units; yields each with the problems of its skipped images."""
    if units:
        batches = _load_ahead(job, units, workers)  # before the worker, whose tables take seconds
        worker = Worker(job)
        for unit in units:
            yield unit, worker.fill(unit, batches, store)


def stream(job: Job, units: Sequence[Unit], workers: int | None) -> Generator[BatchResult, None, None]:
    """The results of units in order."""
    if units:
        batches = _load_ahead(job, units, workers)
        worker = Worker(job)
        for unit in units:
            yield from worker.measure(unit, batches)


def _load_ahead(job: Job, units: Sequence[Unit], workers: int | None) -> Iterator[Batch]:
    ranges = [images for unit in units for images in batch_ranges(unit.images, job.batch_size)]
    # One process decodes for as many images as two cores measure; small runs do without.
    count = max(1, min(8, (os.cpu_count() or 1) // 2)) if workers is None else workers
    return load_batches(job.reader(), ranges, count if workers is not None or len(ranges) > 2 else 0)
