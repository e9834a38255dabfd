"""The task of `evaluate`: every metric of every importance, on images or on mosaics of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from classlens.core.arrays import Array
from classlens.data.loading import Batch
from classlens.engine.model_source import ModelSource
from classlens.engine.task import Job
from classlens.forward.run import run
from classlens.lens.lens import Lens
from classlens.store.schema import Schema
from classlens.tasks.evaluation.cascade import Cascade
from classlens.tasks.evaluation.image_batch import EvaluationSettings, ImageBatch, Importance
from classlens.tasks.evaluation.metric import Metric, MetricAxes
from classlens.tasks.evaluation.mosaics import QUARTERS, mosaic
from classlens.tasks.evaluation.schema import group_schema


def group_name(metric: str, text: str) -> str:
    """The group of a store that holds a metric of a method."""
    return f"{metric}.{text}"


def split_group(group: str) -> tuple[str, str]:
    """Metric and method of a group."""
    metric, _, text = group.partition(".")
    return metric, text


def twin_of(source: ModelSource, seed: int) -> Lens:
    """The random twin whose weights replace the trained ones.

    Its seed differs from the run's: training may have started from the weights of that seed, and features grow along
    the initial class embedding.
    """
    return source.random_twin(seed + 1)


@dataclass(frozen=True, eq=False)
class EvaluationTask:
    """Metrics of importances; every group is a pair of both.

    Args:
        pairs: metric and importance of each group.
        settings: settings of metrics.
        shape: shape of the pixels of one image.
        mosaics: whether every four images are measured as one mosaic.
        doubled: whether mosaics have twice the resolution.
    """

    pairs: Mapping[str, tuple[Metric, Importance]]
    settings: EvaluationSettings
    shape: tuple[int, ...]
    mosaics: bool
    doubled: bool
    ignore_unknown: bool = True

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(self.pairs)

    @property
    def mask_grid(self) -> tuple[int, int] | None:
        return (self.shape[1], self.shape[2]) if any(map(self.needs_masks, self.groups)) else None

    def needs_masks(self, group: str) -> bool:
        return self.pairs[group][0].needs_masks

    def lens(self, source: ModelSource) -> Lens:
        """The model at the resolution of the images or mosaics."""
        doubled = source.doubled() if self.mosaics and self.doubled else None
        return doubled or source.lens

    def schema(self, group: str, lens: Lens, names: Array) -> Schema:
        """The arrays of a group for images with these names."""
        metric, importance = self.pairs[group]
        times = 2 if self.mosaics and self.doubled else 1
        tokens = lens.view.tokens((times * self.shape[1], times * self.shape[2]))
        axes = MetricAxes(tokens.grid, len(lens.view.blocks), importance.drawn, self.settings)
        name, text = split_group(group)
        attrs = {"metric": name, "method": text, "mosaics": self.mosaics, "doubled": self.doubled}
        return group_schema(metric, axes, names, attrs)

    def measurer(self, job: Job) -> EvaluationMeasurer:
        """Load the model; the random twin is loaded when a metric first needs it."""
        return EvaluationMeasurer(self, self.lens(job.source), job.source, job.labels)


class EvaluationMeasurer:
    """Measures batches of images, or of mosaics."""

    def __init__(self, task: EvaluationTask, lens: Lens, source: ModelSource, labels: Array) -> None:
        self._task, self._lens, self._source, self._labels = task, lens, source, labels
        names = np.array([""], dtype=object)
        self._schemas = {group: task.schema(group, lens, names) for group in task.groups}
        self._shortens: bool | None = None

    @cached_property
    def _cascade(self) -> Cascade:
        return Cascade(self._lens, twin_of(self._source, self._task.settings.seed))

    def measure(self, batch: Batch, groups: Sequence[str]) -> Iterator[tuple[str, dict[str, Array]]]:
        """The arrays of each group; unreadable images hold fill values.

        The class of interest of an image without a label is the one that the model predicts.
        """
        task = self._task
        label = np.asarray(self._labels[batch.images.start : batch.images.stop], dtype=np.int32)
        pixels = mosaic(batch.pixels, double=task.doubled) if task.mosaics else batch.pixels
        target = torch.as_tensor(label, dtype=torch.int64)
        if bool((target < 0).any()):  # in mosaics all images have labels
            predicted = run(self._lens.view, pixels.to(self._lens.view.dtype)).argmax(dim=1).cpu()
            target = torch.where(target < 0, predicted, target)
        images = ImageBatch(
            lens=self._lens,
            settings=task.settings,
            pixels=pixels.to(self._lens.view.dtype),
            target=target,
            shows_class=batch.shows_class,
            first=batch.images.start,
            cascade=lambda: self._cascade,
            shortens=self._shortens,
        )
        void = ~batch.readable
        if task.mosaics:  # one void quarter makes the mosaic void
            void = void.reshape(-1, QUARTERS).any(axis=1).repeat(QUARTERS)
        for group in groups:
            metric, importance = task.pairs[group]
            arrays = {"label": label.copy(), **metric.measure(images, importance)}
            blank = self._schemas[group].blank(len(label))
            for key, values in arrays.items():
                values[void] = blank[key][void]
            yield group, arrays
        self._shortens = images.shortens  # tried on the first batch
