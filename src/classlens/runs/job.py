"""Everything that one worker needs to measure its share of a data set, on this machine or another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from classlens.errors import ClasslensError
from classlens.hooks.reducing import MemoryTables
from classlens.lens.lens import Lens, load
from classlens.models.view import ModelView, Tokens
from classlens.runs.conditions import CONDITIONS
from classlens.runs.dataset import Dataset
from classlens.runs.loading import Batch, Reader, split
from classlens.runs.measuring import Measurer, Subject
from classlens.runs.store import Store
from classlens.runs.twins import random_twin
from classlens.runs.variables import Array, Axes


@dataclass(frozen=True, eq=False)
class Job:
    """One run; it can be pickled where the model is given by name."""

    model: str | Path | nn.Module | ModelView
    options: Mapping[str, Any]
    """What the model is loaded with."""
    dataset: Dataset
    labels: Array
    """The model's class of each image, -1 where it has none."""
    axes: Axes
    tokens: Tokens
    shape: tuple[int, ...]
    conditions: tuple[str, ...]
    url: str
    batch_size: int
    seed: int
    threads: int
    skip_bad: bool

    @property
    def twin(self) -> bool:
        return any(CONDITIONS[name].twin for name in self.conditions)

    def reader(self, lens: Lens) -> Reader:
        return Reader(self.dataset, lens.preprocessing, self.shape, self.tokens)


class Worker:
    """Measures units of work and writes them."""

    def __init__(self, job: Job, subjects: Mapping[bool, Subject]) -> None:
        self.job = job
        self._measurer = Measurer(subjects, job.axes, job.tokens, job.labels, seed=job.seed)
        self._reader = job.reader(subjects[False].lens)
        self._store = Store(job.url)
        self._done = {name: self._store.done(name) for name in job.conditions}

    @classmethod
    def alone(cls, job: Job) -> Worker:
        """A worker that loads the model itself."""
        lens = load(job.model, **job.options)
        lenses = {False: lens}
        if job.twin:
            lenses[True] = random_twin(job.model, lens, job.options, job.seed)
        memories = job.axes.memories
        return cls(
            job, {key: Subject(each, MemoryTables(each.view) if memories else None) for key, each in lenses.items()}
        )

    def measure_alone(self, unit: range) -> dict[int, str]:
        """``measure`` with images that are read here, by threads."""
        with ThreadPoolExecutor() as pool:
            return self.measure(unit, pool.map(self._reader.batch, split(unit, self.job.batch_size)))

    def measure(self, unit: range, batches: Iterator[Batch]) -> dict[int, str]:
        """Measure a unit under every condition that lacks it and write it; returns why images were skipped.

        Raises ClasslensError for an image that cannot be read, unless such are to be skipped; what comes before it is
        written first.
        """
        lacking = [name for name, done in self._done.items() if not done[unit.start : unit.stop].all()]
        parts: dict[str, list[dict[str, Array]]] = {name: [] for name in lacking}
        problems: dict[int, str] = {}
        with _threads(self.job.threads):
            for _ in split(unit, self.job.batch_size):
                batch = next(batches)
                problems |= batch.problems
                for name, arrays in self._measurer.measure(batch, lacking).items():
                    parts[name].append(arrays)
                if problems and not self.job.skip_bad:
                    break
        stop = unit.stop if self.job.skip_bad or not problems else min(problems)
        for name in lacking:
            whole = {key: np.concatenate([part[key] for part in parts[name]]) for key in parts[name][0]}
            written = {key: values[: stop - unit.start] for key, values in whole.items()}
            if stop > unit.start:
                self._store.write(name, unit.start, written, problems if self.job.skip_bad else {})
        if problems and not self.job.skip_bad:
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
