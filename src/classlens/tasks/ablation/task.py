"""The part that tasks of labeled images share: images without a label or that cannot be read hold fill values."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.arrays import Array
from classlens.data.loading import Batch
from classlens.engine.task import Job
from classlens.models.view import ModelView
from classlens.store.schema import Schema, Variable

LABEL = Variable(("image",), np.dtype("int32"), -1, "class of the data set; -1 for an image without a label")


@dataclass(frozen=True, eq=False)
class LabeledTask(ABC):
    """A group of arrays for images with a label. ``batch_size`` is the number of rows in a batch of variants."""

    batch_size: int
    mask_grid: ClassVar[None] = None
    ignore_unknown: ClassVar[bool] = False

    @property
    @abstractmethod
    def group(self) -> str:
        """The group of the store."""

    @property
    def groups(self) -> tuple[str, ...]:
        return (self.group,)

    def needs_masks(self, group: str) -> bool:
        return False

    @abstractmethod
    def variables(self) -> dict[str, Variable]:
        """The arrays beside the label."""

    @abstractmethod
    def coords(self, view: ModelView) -> dict[str, Array]:
        """Values of every dim but ``image``."""

    @abstractmethod
    def of_images(
        self, view: ModelView, pixels: Float[Tensor, "image channel height width"], label: Int[Tensor, " image"]
    ) -> Mapping[str, Array]:
        """The arrays of images with a label."""

    def schema(self, view: ModelView, names: Array, attrs: Mapping[str, Any] | None = None) -> Schema:
        """The arrays of the group for images with these names."""
        coords = self.coords(view)
        return Schema(
            {"image": len(names), **{dim: len(values) for dim, values in coords.items()}},
            {"label": LABEL, **self.variables()},
            frozenset(coords),
            {"image": ("image", names), **{dim: (dim, values) for dim, values in coords.items()}},
            attrs or {},
        )

    def measurer(self, job: Job) -> LabeledMeasurer:
        return LabeledMeasurer(self, job.source.lens.view, job.labels)


class LabeledMeasurer:
    """Measures the images of a batch that can be read and have a label."""

    def __init__(self, task: LabeledTask, view: ModelView, labels: Array) -> None:
        self._task, self._view, self._labels = task, view, labels
        self._schema = task.schema(view, np.array([""], dtype=object))

    def measure(self, batch: Batch, groups: Sequence[str]) -> Iterator[tuple[str, dict[str, Array]]]:
        """The arrays of the group."""
        labels = np.asarray(self._labels[batch.images.start : batch.images.stop], dtype=np.int32)
        arrays = self._schema.blank(len(labels))
        measured = np.flatnonzero(batch.readable & (labels >= 0))
        arrays["label"][batch.readable] = labels[batch.readable]
        if len(measured):
            pixels = batch.pixels[measured].to(self._view.device, self._view.dtype)
            by_name = self._task.of_images(self._view, pixels, torch.as_tensor(labels[measured], dtype=torch.int64))
            for name, values in by_name.items():
                arrays[name][measured] = values
        yield self._task.group, arrays


def digest_name(name: str, settings: Any) -> str:
    """The name of a group whose arrays depend on settings, so that other settings make another group."""
    return f"{name}-{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]}"
