"""Everything that one worker needs to measure its share of a data set, on this machine or another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from classlens.hooks.reducing import MemoryTables
from classlens.lens.lens import Lens, load
from classlens.models.view import ModelView, Tokens
from classlens.runs.conditions import CONDITIONS
from classlens.runs.dataset import Dataset
from classlens.runs.loading import Reader
from classlens.runs.measuring import Measurer, Subject
from classlens.runs.twins import random_twin
from classlens.runs.variables import Array, Axes
from classlens.runs.work import Work, Worker


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
    seed: int
    work: Work

    def reader(self, lens: Lens) -> Reader:
        return Reader(self.dataset, lens.preprocessing, self.shape, self.tokens.grid)

    def worker_of(self, subjects: Mapping[bool, Subject]) -> Worker:
        measurer = Measurer(subjects, self.axes, self.tokens, self.labels, seed=self.seed)
        return Worker(self.work, measurer, self.reader(subjects[False].lens))

    def worker(self) -> Worker:
        """A worker that loads the model itself."""
        lens = load(self.model, **self.options)
        lenses = {False: lens}
        if any(CONDITIONS[name].twin for name in self.work.groups):
            lenses[True] = random_twin(self.model, lens, self.options, self.seed)
        memories = self.axes.memories
        subjects = {key: Subject(each, MemoryTables(each.view) if memories else None) for key, each in lenses.items()}
        return self.worker_of(subjects)
