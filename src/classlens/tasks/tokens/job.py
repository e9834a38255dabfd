"""Everything that one worker needs to measure its share of a data set, on this machine or another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from classlens.data.dataset import Dataset
from classlens.data.loading import Reader
from classlens.engine.work import Work, Worker
from classlens.forward.agreement import MemoryTables
from classlens.lens.lens import Lens, load
from classlens.lens.random_twin import random_twin
from classlens.lens.tuned_lens import TunedLens
from classlens.models.view import ModelView, Tokens
from classlens.store.probe_folder import ProbeFiles
from classlens.store.schema import Array, Axes
from classlens.tasks.tokens.conditions import CLEAN, CONDITIONS
from classlens.tasks.tokens.measuring import Measurer, Subject


@dataclass(frozen=True, eq=False)
class Readings:
    """What reads the model's states in another way than its class embedding: a tuned lens, and a folder of probes."""

    tuned_lens: TunedLens | None = None
    probes: Path | None = None

    def files(self, condition: str) -> ProbeFiles:
        """The probes of a condition; see ``probe_files.KINDS``."""
        assert self.probes is not None, "conditions are checked before"
        return ProbeFiles(self.probes / condition)

    def digest(self, condition: str) -> str:
        """What a condition is read by; empty for the class embedding."""
        subject = CONDITIONS[condition].subject
        if subject == "tuned":
            assert self.tuned_lens is not None, "conditions are checked before"
            return self.tuned_lens.digest
        return self.files(condition).digest if subject == "probe" else ""


def subjects_of(
    conditions: Sequence[str],
    lens: Lens,
    twin: Lens | None,
    readings: Readings,
    tables: Mapping[bool, MemoryTables],
) -> dict[str, Subject]:
    """What is measured under each condition; ``tables`` of the model under False, of its twin under True."""
    own = Subject(lens, tables.get(False))
    found = {CLEAN: own}
    for name in conditions:
        subject = CONDITIONS[name].subject
        if subject == "twin":
            assert twin is not None, "it is made where a condition asks for it"
            found[name] = Subject(twin, tables.get(True))
        elif subject == "tuned":
            assert readings.tuned_lens is not None, "conditions are checked before"
            # Its memories are those of the model: the tables know class spaces, which stay the same.
            found[name] = Subject(lens.with_tuned_lens(readings.tuned_lens), tables.get(False))
        else:
            found[name] = Subject(lens, probes=readings.files(name)) if subject == "probe" else own
    return found


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
    readings: Readings
    work: Work

    def reader(self, lens: Lens) -> Reader:
        return Reader(self.dataset, lens.preprocessing, self.shape, self.tokens.grid)

    def worker_of(self, subjects: Mapping[str, Subject]) -> Worker:
        measurer = Measurer(subjects, self.axes, self.tokens, self.labels, seed=self.seed)
        return Worker(self.work, measurer, self.reader(subjects[CLEAN].lens))

    def worker(self) -> Worker:
        """A worker that loads the model itself."""
        lens = load(self.model, **self.options)
        lenses = {False: lens}
        if any(CONDITIONS[name].subject == "twin" for name in self.work.groups):
            lenses[True] = random_twin(self.model, lens, self.options, self.seed)
        tables = {key: MemoryTables(each.view) for key, each in lenses.items()} if self.axes.memories else {}
        return self.worker_of(subjects_of(self.work.groups, lens, lenses.get(True), self.readings, tables))
