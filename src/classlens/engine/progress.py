"""Progress and summary of a run over a data set."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from classlens.renderers import Shown

MEASURING = "measuring"


@dataclass(frozen=True)
class Progress:
    """Progress of a run.

    Args:
        done: images finished, by this run and earlier ones.
        images: images in total.
        before: images that earlier runs finished.
        skipped: images that this run skipped.
        seconds: time since the run began to measure.
        doing: the present step, such as ``"measuring"``.
        under_way: work done for the images of the present batch, in images.
    """

    done: int
    images: int
    before: int
    skipped: int
    seconds: float
    doing: str = MEASURING
    under_way: float = 0.0

    @property
    def rate(self) -> float:
        """Images per second of this run."""
        return (self.done + self.under_way - self.before) / self.seconds if self.seconds > 0 else 0.0

    @property
    def remaining(self) -> float | None:
        """Seconds that remain at this rate; None as long as it is not known."""
        return (self.images - self.done - self.under_way) / self.rate if self.rate > 0 else None


Report = Callable[[Progress], None]


def no_report(progress: Progress) -> None:
    """The default of ``report``: progress is not shown."""


@dataclass(frozen=True)
class MeasureResult(Shown):
    """Summary of a run that wrote a store, which a notebook shows as a table.

    Args:
        store: path or URL of the store.
        images: images of the data set.
        before: images that earlier runs had measured.
        skipped: reasons by name of the skipped images.
        seconds: time of measuring, without loading the model and listing the data.
        batch_size: images per forward pass.
        note: remark on the number of images; empty where there is none.
        classes: number of images by class of the data, in order.
        unlabeled: number of images without a label, for which the predicted class stands in.
        unmasked: number of images measured without a mask, in data that has masks.
    """

    _renderer: ClassVar[str] = "measurement"

    store: str
    images: int
    before: int
    skipped: dict[str, str]
    seconds: float
    batch_size: int
    note: str = ""
    classes: Mapping[str, int] = field(default_factory=dict)
    unlabeled: int = 0
    unmasked: int = 0


class Tracker:
    """Counts the images of a run and reports its progress."""

    def __init__(self, report: Report, images: int, before: int = 0, doing: str = MEASURING) -> None:
        self._report, self._images, self._before, self._doing = report, images, before, doing
        self._done, self._skipped = before, 0
        self._start = time.perf_counter()
        self.advance(0)

    @property
    def seconds(self) -> float:
        """Time since the run began."""
        return time.perf_counter() - self._start

    def advance(self, images: int, skipped: int = 0, doing: str | None = None, under_way: float = 0.0) -> None:
        """Count further images and report."""
        self._skipped += skipped
        self.at(self._done + images, doing, under_way)

    def resume(self, images: int, doing: str | None = None) -> None:
        """Count images that an earlier run finished and report."""
        self._before += images
        self.at(self._done + images, doing)

    def at(self, done: int, doing: str | None = None, under_way: float = 0.0) -> None:
        """Set the number of finished images and report."""
        self._done, self._doing = done, doing or self._doing
        counts = self._done, self._images, self._before, self._skipped
        self._report(Progress(*counts, self.seconds, self._doing, under_way))

    def restart(self, images: int, before: int) -> None:
        """Count other images from now on; the time runs on."""
        self._images, self._before, self._done = images, before, before
