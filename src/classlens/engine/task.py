"""The declaration of a task, and the job that runs it over a data set."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from classlens.core.arrays import Array
from classlens.data.dataset import Dataset
from classlens.data.loading import Batch, ImageReader
from classlens.engine.model_source import ModelSource

Arrays = Mapping[str, Mapping[str, Array]]
"""Arrays by group and variable. The first dim is ``image``, except in tasks that are streamed and never stored."""


@dataclass(frozen=True)
class Partition:
    """The work of one worker: batches of whole shards, each with the groups in which it is pending."""

    batches: tuple[tuple[range, tuple[str, ...]], ...]

    @property
    def ranges(self) -> list[range]:
        """The images of each batch."""
        return [images for images, _ in self.batches]

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(map(len, self.ranges))


class Step(NamedTuple):
    """Work that a worker finished since its last step.

    Args:
        images: images that are finished in all groups.
        skipped: how many of them were skipped.
        under_way: work done for the next images, in images.
        totals: facts of finished batches that belong to no single image.
    """

    images: int
    skipped: int = 0
    under_way: float = 0.0
    totals: tuple[Any, ...] = ()


TOTALS = "totals"
"""The name by which a measurer yields facts of a batch that belong to no single image, in the place of a group."""


@runtime_checkable
class Totals(Protocol):
    """Takes facts of finished batches, in any order, a batch perhaps twice."""

    def add(self, part: Any) -> None: ...

    def save(self) -> None: ...


Steps = Generator[Step, None, None]
"""A run, step by step. Where it ends early, what is finished is written first."""


@runtime_checkable
class Measurer(Protocol):
    """The state of a task in one process: models, tables, caches."""

    def measure(self, batch: Batch, groups: Sequence[str]) -> Iterator[tuple[str, Any]]:
        """Each of these groups with its arrays for the images of a batch, as soon as it is measured.

        ``TOTALS`` comes before the groups that a batch is found finished by, so that nothing is lost between the two.
        """
        ...


@runtime_checkable
class Task(Protocol):
    """A computation for each image of a data set. A task can be pickled."""

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups of arrays that the task computes."""
        ...

    @property
    def mask_grid(self) -> tuple[int, int] | None:
        """Rows and columns of the positions at which masks are sampled; None for a task without masks."""
        ...

    @property
    def ignore_unknown(self) -> bool:
        """Whether positions that the mask leaves open are marked with -1."""
        ...

    def needs_masks(self, group: str) -> bool:
        """Whether a group has no values for an image without a mask."""
        ...

    def measurer(self, job: Job) -> Measurer:
        """Load what the task needs in this process."""
        ...


@dataclass(frozen=True, eq=False)
class Job:
    """A task over the images of a data set. It can be pickled where the model is given by name.

    Args:
        task: what is computed.
        source: the model.
        dataset: the images.
        labels: the model's class of each image; -1 for an image without a label.
        shape: shape of the pixels of one image.
        batch_size: images per forward pass.
        threads: threads of torch, fixed for a store, since sums in another order differ in their last digits.
        skip_bad: skip unreadable images in place of stopping.
    """

    task: Task
    source: ModelSource
    dataset: Dataset
    labels: Array
    shape: tuple[int, ...]
    batch_size: int
    threads: int
    skip_bad: bool

    def reader(self) -> ImageReader:
        """A reader of the images."""
        preprocessing = self.source.lens.preprocessing
        return ImageReader(self.dataset, preprocessing, self.shape, self.task.mask_grid, self.task.ignore_unknown)
