"""The record of a metric: its arrays by image, and its rows in the tables of scores and curves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal, NamedTuple

import xarray as xr

from classlens.core.arrays import Array
from classlens.core.stats import Statistics
from classlens.lens.lens import Lens
from classlens.models.view import Tokens
from classlens.store.schema import Variable
from classlens.tasks.evaluation.image_batch import EvaluationSettings, ImageBatch, Importance


class Score(NamedTuple):
    """A number of the table of scores, with its interval over images.

    ``better`` is ``higher``, ``lower``, or empty where neither direction is better.
    """

    measure: str
    value: float
    low: float
    high: float
    images: int
    better: str


class CurvePoint(NamedTuple):
    """A point of a curve: ``x`` in 0…1, and the value with its interval."""

    curve: str
    x: float
    value: float
    low: float
    high: float


class MetricSchema(NamedTuple):
    """Arrays that a metric writes for one importance: variables, and sizes and coordinates of its own dims."""

    variables: Mapping[str, Variable]
    sizes: Mapping[str, int]
    coords: Mapping[str, Array]


class CurveAxes(NamedTuple):
    """Labels of the axes of a metric's curves; metrics with equal axes share a figure.

    ``unit_range``: whether y is a share, drawn from 0 to 1.
    """

    x: str
    y: str
    unit_range: bool = True


class Metric(ABC):
    """A measure of faithfulness.

    Class attributes: ``label`` names it in summaries; ``about`` is one line for help and documentation; ``measures``
    and ``curves`` label its rows of the two tables, ``curve_axes`` the axes of its figure; ``rounding_error`` marks
    measures that are shown as powers of ten and say nothing about a method; ``images`` says whether it sees single
    images or mosaics of four; ``mask_pixels`` whether it needs masks pixel by pixel.
    """

    label: ClassVar[str]
    about: ClassVar[str]
    measures: ClassVar[Mapping[str, str]]
    curves: ClassVar[Mapping[str, str]] = {}
    curve_axes: ClassVar[CurveAxes | None] = None
    rounding_error: ClassVar[bool] = False
    images: ClassVar[Literal["single", "mosaic"]] = "single"
    mask_pixels: ClassVar[bool] = False

    def unavailable(self, lens: Lens, *, masks: bool, twin: bool) -> str | None:
        """Why the metric cannot be measured; None where it can."""
        return None

    def applies_to(self, importance: Importance) -> bool:
        """Whether the metric says anything about an importance."""
        return True

    @abstractmethod
    def schema(self, lens: Lens, tokens: Tokens, importance: Importance, settings: EvaluationSettings) -> MetricSchema:
        """The arrays that are written; the first dim of every variable is ``image``."""

    @abstractmethod
    def measure(self, batch: ImageBatch, importance: Importance) -> dict[str, Array]:
        """The arrays of a batch."""

    @abstractmethod
    def scores(self, data: xr.Dataset, statistics: Statistics) -> Iterator[Score]:
        """Rows of the table of scores, from measured images."""

    def points(self, data: xr.Dataset, statistics: Statistics) -> Iterator[CurvePoint]:
        """Rows of the table of curves."""
        yield from ()
