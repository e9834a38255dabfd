"""The record of a metric: its arrays by image, and its rows in the tables of scores and curves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal, NamedTuple

import xarray as xr

from classlens.core.arrays import Array
from classlens.core.stats import Statistics
from classlens.store.schema import Variable
from classlens.tasks.evaluation.image_batch import EvaluationSettings, ImageBatch, Importance


class Score(NamedTuple):
    """A row of the table of scores, with its interval over images.

    ``better`` is ``higher``, ``lower``, or empty where neither direction is better. ``resampled`` holds the value in
    each bootstrap resample, for differences from other methods.
    """

    measure: str
    value: float
    low: float
    high: float
    images: int
    better: str
    resampled: Array | None = None


class CurvePoint(NamedTuple):
    """A row of the table of curves: ``x`` from 0 to 1, and the value with its interval over images."""

    curve: str
    x: float
    value: float
    low: float
    high: float


class CurveAxes(NamedTuple):
    """Labels of the axes of curves; metrics with equal axes share a figure.

    ``unit_range`` says whether y is a share, drawn from 0 to 1.
    """

    x: str
    y: str
    unit_range: bool = True


class MetricAxes(NamedTuple):
    """All that the coordinates of a metric depend on.

    Args:
        grid: rows and columns of the image tokens of an image, or of a mosaic.
        blocks: number of blocks of the model.
        drawn: whether the maps of the importance are random orders.
        settings: settings of metrics.
    """

    grid: tuple[int, int]
    blocks: int
    drawn: bool
    settings: EvaluationSettings


class Metric(ABC):
    """A measure of faithfulness.

    Class attributes: ``label`` is the title of its table, ``about`` one line for help and documentation. ``variables``
    are the arrays of its values by name; the first dim of each is ``image``. ``measures`` and ``curves`` label the rows
    of its two tables by their names there, and ``curve_axes`` the axes of its curves.
    ``images`` says whether it is measured on single images or on mosaics of four. ``needs_masks`` and
    ``needs_random_twin`` say what data and model must have. ``by_name_only`` leaves it out of ``"all"``, as variants of
    a metric that differ in their fill alone. ``rounding_error`` marks a metric whose scores are rounding
    errors, shown as powers of ten.
    """

    label: ClassVar[str]
    about: ClassVar[str]
    variables: ClassVar[Mapping[str, Variable]]
    measures: ClassVar[Mapping[str, str]]
    curves: ClassVar[Mapping[str, str]] = {}
    curve_axes: ClassVar[CurveAxes | None] = None
    images: ClassVar[Literal["single", "mosaic"]] = "single"
    needs_masks: ClassVar[bool] = False
    needs_random_twin: ClassVar[bool] = False
    by_name_only: ClassVar[bool] = False
    rounding_error: ClassVar[bool] = False

    def applies_to(self, importance: Importance) -> bool:
        """Whether the metric is defined for an importance."""
        return True

    def coords(self, axes: MetricAxes) -> dict[str, Array]:
        """The coordinate of every dim of its arrays but ``image``; none by default."""
        return {}

    def passes(self, axes: MetricAxes) -> float:
        """Forward passes of the model per image, about; the more there are, the smaller are batches by default."""
        return 1

    @abstractmethod
    def measure(self, batch: ImageBatch, importance: Importance) -> dict[str, Array]:
        """The arrays of a batch."""

    @abstractmethod
    def scores(self, data: xr.Dataset, statistics: Statistics) -> Iterator[Score]:
        """Rows of the table of scores, from the arrays of all images that have a class."""

    def points(self, data: xr.Dataset, statistics: Statistics) -> Iterator[CurvePoint]:
        """Rows of the table of curves, from the same arrays."""
        yield from ()
