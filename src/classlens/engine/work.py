"""Going through a data set for a store: what is left of it, who measures that, and how far it is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch

from classlens.data.loading import Batch, Reader, batches, split
from classlens.errors import ClasslensError, unknown
from classlens.store.schema import Array
from classlens.store.store import SHARD, Store, shards

Engine = Literal["local", "ray"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
Made = Iterator[tuple[range, dict[int, str]]]
"""Units of work as they are written, each with why images of it were skipped."""


@dataclass(frozen=True)
class Progress:
    """How far a run is: images of all, those that were there before, and what was skipped so far."""

    done: int
    images: int
    before: int
    skipped: int
    seconds: float
    doing: str = "measuring"

    @property
    def rate(self) -> float:
        """Images a second, of this run."""
        return (self.done - self.before) / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class MeasureResult:
    """What a run has done. ``seconds`` is the time of measuring, without loading the model and looking at the data."""

    store: str
    images: int
    before: int
    skipped: dict[str, str]
    """Why images were skipped, by name."""
    seconds: float
    batch_size: int
    note: str = ""
    """What else is to be said of the number of images."""


@dataclass(frozen=True)
class Work:
    """Which groups of which store are to be filled, and how."""

    url: str
    groups: tuple[str, ...]
    batch_size: int
    threads: int
    skip_bad: bool


class Measurer(Protocol):
    """From a batch of images to the arrays of the groups that are asked for."""

    def measure(self, batch: Batch, groups: Sequence[str]) -> Mapping[str, Mapping[str, Array]]: ...


class Job(Protocol):
    """What a worker on another machine is sent; it can be pickled."""

    def worker(self) -> Worker:
        """A worker that loads all it needs itself."""
        ...


class Worker:
    """Measures units of work and writes them."""

    def __init__(self, work: Work, measurer: Measurer, reader: Reader) -> None:
        self.work = work
        self._measurer, self._reader = measurer, reader
        self._store = Store(work.url)
        self._done = {name: self._store.done(name) for name in work.groups}

    def measure_alone(self, unit: range) -> dict[int, str]:
        """``measure`` with images that are read here, by threads."""
        with ThreadPoolExecutor() as pool:
            return self.measure(unit, pool.map(self._reader.batch, split(unit, self.work.batch_size)))

    def measure(self, unit: range, batches: Iterator[Batch]) -> dict[int, str]:
        """Measure a unit for every group that lacks it and write it; returns why images were skipped.

        Raises ClasslensError for an image that cannot be read, unless such are to be skipped; what comes before it is
        written first.
        """
        lacking = [name for name, done in self._done.items() if not done[unit.start : unit.stop].all()]
        parts: dict[str, list[Mapping[str, Array]]] = {name: [] for name in lacking}
        problems: dict[int, str] = {}
        with _threads(self.work.threads):
            for _ in split(unit, self.work.batch_size):
                batch = next(batches)
                problems |= batch.problems
                for name, arrays in self._measurer.measure(batch, lacking).items():
                    parts[name].append(arrays)
                if problems and not self.work.skip_bad:
                    break
        stop = unit.stop if self.work.skip_bad or not problems else min(problems)
        for name in lacking:
            whole = {key: np.concatenate([part[key] for part in parts[name]]) for key in parts[name][0]}
            written = {key: values[: stop - unit.start] for key, values in whole.items()}
            if stop > unit.start:
                self._store.write(name, unit.start, written, problems if self.work.skip_bad else {})
        if problems and not self.work.skip_bad:
            raise ClasslensError(
                f"{problems[min(problems)]}; all before it is saved, and --skip-bad (skip_bad=True) leaves it out"
            )
        return problems


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """As many threads as the store was begun with: sums in another order differ in their last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_engine(engine: str) -> None:
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)


def lacking(work: Work, store: Store) -> list[range]:
    """The units of work of which some image is not measured for some group."""
    done: Array = np.stack([store.done(name) for name in work.groups]).min(axis=0)
    units = shards(len(done), max(SHARD, work.batch_size))
    return [unit for unit in units if not done[unit.start : unit.stop].all()]


def reading(reader: Reader, units: Sequence[range], batch_size: int, workers: int | None) -> Iterator[Batch]:
    """The batches of all units, one after another, read ahead."""
    wanted = [batch for unit in units for batch in split(unit, batch_size)]
    # One process decodes for as many images as two cores measure; small runs do without.
    count = max(1, min(8, (os.cpu_count() or 1) // 2)) if workers is None else workers
    return batches(reader, wanted, count if workers is not None or len(wanted) > 2 else 0)


def here(made: Callable[[], Worker], units: Sequence[range], batches: Iterator[Batch]) -> Made:
    """The units one after another, in this process."""
    if units:
        worker = made()
        for unit in units:
            yield unit, worker.measure(unit, batches)


def elsewhere(job: Job, units: Sequence[range], cluster: Any) -> Made:
    """The units on a cluster, in any order."""
    from classlens.engine.ray import Cluster, run_on_cluster

    return run_on_cluster(job, units, cluster or Cluster())


def follow(
    made: Iterable[tuple[range, dict[int, str]]],
    images: int,
    todo: int,
    renew: Callable[[], None],
    report: Callable[[Progress], None],
) -> float:
    """Report each unit as it is written; returns the seconds that all took."""
    before = images - todo
    start, finished, skipped = time.perf_counter(), before, 0
    report(Progress(before, images, before, 0, 0.0))
    for unit, problems in made:
        finished, skipped = finished + len(unit), skipped + len(problems)
        renew()
        report(Progress(finished, images, before, skipped, time.perf_counter() - start))
    return time.perf_counter() - start
