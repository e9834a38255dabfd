"""What one worker needs to measure its share of images, or of mosaics of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from classlens.data.dataset import Dataset
from classlens.data.loading import Batch, Reader
from classlens.engine.work import Work, Worker
from classlens.errors import ClasslensError
from classlens.lens.lens import Lens, load
from classlens.lens.random_twin import random_twin
from classlens.models.view import ModelView
from classlens.store.schema import Array, Layout, Variable
from classlens.tasks.evaluation.cascade import Cascade
from classlens.tasks.evaluation.image_batch import EvaluationBatch, Settings
from classlens.tasks.evaluation.method_spec import MethodSpec
from classlens.tasks.evaluation.metric import Metric
from classlens.tasks.evaluation.pointing import QUARTERS, mosaic
from classlens.tasks.evaluation.registry import METRICS

_LABEL = Variable(("image",), np.dtype("int32"), -1, "class of the data set; -1 where the image has none")


def group_of(metric: Metric, method: MethodSpec) -> str:
    """The group of a store in which a metric of a method stands."""
    return f"{metric.name}.{method.text}"


@dataclass(frozen=True, eq=False)
class Job:
    """One run; it can be pickled where the model is given by name."""

    model: str | Path | nn.Module | ModelView
    options: Mapping[str, Any]
    """What the model is loaded with."""
    dataset: Dataset
    labels: Array
    """The model's class of each image, -1 where it has none."""
    methods: tuple[MethodSpec, ...]
    settings: Settings
    shape: tuple[int, ...]
    """Of the pixels of one image, as they are read."""
    mosaics: bool
    """Whether every four images are one."""
    double: bool
    """Whether mosaics have twice the resolution."""
    work: Work

    def wanted(self, group: str) -> tuple[Metric, MethodSpec]:
        name, _, text = group.partition(".")
        return METRICS[name], next(method for method in self.methods if method.text == text)

    def layout(self, group: str, lens: Lens) -> tuple[Layout, dict[str, tuple[str, Array]]]:
        """The arrays of a group, and the coordinates of its own dims; ``lens`` is the one that sees the images."""
        metric, method = self.wanted(group)
        tokens = lens.view.tokens(self.size)
        shape = metric.shape(lens, tokens, method, self.settings)
        sizes = {"image": len(self.dataset), **shape.sizes}
        coords = {dim: (dim, values) for dim, values in shape.coords.items()}
        return Layout(sizes, {"label": _LABEL, **shape.variables}, frozenset(shape.sizes)), coords

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what the model sees."""
        times = 2 if self.mosaics and self.double else 1
        return times * self.shape[1], times * self.shape[2]

    def reader(self, lens: Lens) -> Reader:
        # Masks are looked at pixel by pixel, where anything asks for them.
        masked = any(group.startswith("segmentation.") for group in self.work.groups)
        grid = (self.shape[1], self.shape[2]) if masked else (1, 1)
        return Reader(self.dataset, lens.preprocessing, self.shape, grid, ignores=True)

    def worker_of(self, lens: Lens, large: Lens, twin: Lens | None) -> Worker:
        """``large`` sees mosaics; ``twin`` is needed where weights are made random."""
        seer = large if self.mosaics else lens
        return Worker(self.work, Measurer(self, seer, lambda: twin or self._twin(lens)), self.reader(lens))

    def worker(self) -> Worker:
        """A worker that loads the model itself."""
        lens = load(self.model, **self.options)
        large = larger(self.model, lens, self.options) if self.mosaics else None
        return self.worker_of(lens, large or lens, None)

    def _twin(self, lens: Lens) -> Lens:
        return twin_of(self.model, lens, self.options, self.settings.seed)


def twin_of(model: str | Path | nn.Module | ModelView, lens: Lens, options: Mapping[str, Any], seed: int) -> Lens:
    """The random twin whose weights are put in.

    Not that of the seed itself: from it the model may have been trained, and features grow along the class embedding
    that they began with.
    """
    return random_twin(model, lens, options, seed + 1)


def larger(model: str | Path | nn.Module | ModelView, lens: Lens, options: Mapping[str, Any]) -> Lens | None:
    """The model for twice its input size, where it takes that or its library resamples its position embeddings."""
    view = lens.view
    if view.any_size:
        return lens
    if not isinstance(model, str | Path) or view.size_option is None or str(model).startswith("builtin:"):
        return None
    height, width = view.input_size
    size: Any = 2 * height if height == width else (2 * height, 2 * width)
    try:
        found = load(model, **{**options, view.size_option: size})
    except ClasslensError:
        return None
    same = torch.equal(found.view.blocks[0].attn.weight, view.blocks[0].attn.weight)
    return found if same and found.view.input_size == (2 * height, 2 * width) else None


class Measurer:
    """Measures batches of images, or of mosaics."""

    def __init__(self, job: Job, lens: Lens, twin: Callable[[], Lens]) -> None:
        self._job, self._lens, self._twin = job, lens, twin
        self._layouts = {group: job.layout(group, lens)[0] for group in job.work.groups}
        self._trust: bool | None = None

    @cached_property
    def _cascade(self) -> Cascade:
        return Cascade(self._lens, self._twin())

    def measure(self, batch: Batch, groups: Sequence[str]) -> dict[str, dict[str, Array]]:
        """The arrays of each group; images that cannot be read, or have no class, are left blank."""
        label = np.asarray(self._job.labels[batch.images.start : batch.images.stop], dtype=np.int32)
        pixels = mosaic(batch.pixels, double=self._job.double) if self._job.mosaics else batch.pixels
        seen = EvaluationBatch(
            lens=self._lens,
            settings=self._job.settings,
            pixels=pixels.to(self._lens.view.dtype),
            target=torch.as_tensor(np.maximum(label, 0), dtype=torch.int64),
            shows=batch.shows,
            first=batch.images.start,
            cascade=lambda: self._cascade,
            trust=self._trust,
        )
        if self._trust is None and any(group.startswith("removal.") for group in groups):
            self._trust = seen.shortened.shortens
        problems = [index - batch.images.start for index in batch.problems]
        void = label < 0
        void[problems] = True
        if self._job.mosaics:  # a mosaic with a hole is none
            void = void.reshape(-1, QUARTERS).any(axis=1).repeat(QUARTERS)
        found = {}
        for group in groups:
            metric, method = self._job.wanted(group)
            arrays = {"label": label.copy(), **metric.measure(seen, method)}
            empty = self._layouts[group].blank(len(label))
            for key, values in arrays.items():
                values[void] = empty[key][void]
            found[group] = arrays
        return found
