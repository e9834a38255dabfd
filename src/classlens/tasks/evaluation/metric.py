"""What a measure of faithfulness is: one file, arrays of a store by image, and rows of two tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

import xarray as xr

from classlens.core.stats import Statistics
from classlens.lens.lens import Lens
from classlens.models.view import Tokens
from classlens.store.schema import Array, Variable
from classlens.tasks.evaluation.image_batch import EvaluationBatch, Settings
from classlens.tasks.evaluation.method_spec import MethodSpec


class Score(NamedTuple):
    """One number of the table, with its interval over images."""

    measure: str
    value: float
    low: float
    high: float
    images: int
    better: str
    """``higher``, ``lower``, or nothing where neither speaks for a method."""


class CurvePoint(NamedTuple):
    """One point of a curve: ``x`` in 0…1, the value with its interval."""

    curve: str
    x: float
    value: float
    low: float
    high: float


class MetricSchema(NamedTuple):
    """The arrays that a measure writes of one method."""

    variables: Mapping[str, Variable]
    sizes: Mapping[str, int]
    coords: Mapping[str, Array]
    """Values along its own dims."""


class CurveAxes(NamedTuple):
    """Labels of the axes of a metric's curves; metrics with equal axes share a figure."""

    x: str
    y: str
    unit_range: bool = True
    """Whether y is a share, drawn from 0 to 1."""


class Metric(Protocol):
    """One measure. It is added by adding it to the table of ``registry.py``."""

    @property
    def name(self) -> str: ...

    @property
    def labels(self) -> Mapping[str, str]:
        """Column headings of its measures."""
        ...

    @property
    def curve_labels(self) -> Mapping[str, str]:
        """Panel titles of its curves; empty without curves."""
        ...

    @property
    def curve_axes(self) -> CurveAxes | None:
        """Axes of its curves; None without curves."""
        ...

    @property
    def rounding_error(self) -> bool:
        """Whether its measures are rounding errors, shown as powers of ten, and no method is better for them."""
        ...

    @property
    def mosaics(self) -> bool:
        """Whether it is measured on mosaics of four images, in place of single ones."""
        ...

    def lacks(self, lens: Lens, *, masks: bool, twin: bool) -> str | None:
        """Why it cannot be measured; None where it can."""
        ...

    def takes(self, method: MethodSpec) -> bool:
        """Whether it says anything of a method."""
        ...

    def shape(self, lens: Lens, tokens: Tokens, method: MethodSpec, settings: Settings) -> MetricSchema:
        """What is written; every variable has the dim ``image`` first."""
        ...

    def measure(self, seen: EvaluationBatch, method: MethodSpec) -> dict[str, Array]:
        """The arrays of some images."""
        ...

    def scores(self, data: xr.Dataset, how: Statistics) -> Iterator[Score]:
        """Rows of the table, from images that were measured."""
        ...

    def points(self, data: xr.Dataset, how: Statistics) -> Iterator[CurvePoint]:
        """Rows of the curves."""
        ...
