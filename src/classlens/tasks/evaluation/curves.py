"""Accuracy along a removal, and the area below it, with intervals over images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy import ndarray

from classlens.core.stats import Statistics, bootstrap, estimate
from classlens.tasks.evaluation.metric import CurveAxes, CurvePoint, Score

Floats = ndarray[Any, np.dtype[np.floating[Any]]]
Area = Callable[[Float[ndarray, "draw point"]], Float[ndarray, " draw"]]

DIRECTIONS = ("negative", "positive")
"""The least important tokens or pixels go first, or the most important ones."""
ACCURACY_AXES = CurveAxes("share removed or masked", "top-1 accuracy")


def trapezoid(x: Floats) -> Area:
    """The area below curves over rising ``x``, divided by its span: 1 for an accuracy of 1 everywhere."""
    span = x[-1] - x[0] if len(x) > 1 else 1.0
    weights = np.zeros(len(x))
    weights[1:] += np.diff(x) / 2
    weights[:-1] += np.diff(x) / 2
    if len(x) == 1:
        weights[:] = 1.0
    return lambda curves: curves @ weights / span


def directions(data: xr.Dataset) -> Iterator[tuple[str, Float[ndarray, "image point"]]]:
    """The share of correct predictions of each image, by direction; random orders count for both directions."""
    correct, orders = data["correct"].values.astype(np.float64), list(data["order"].values)
    for direction in DIRECTIONS:
        numbers = [number for number, order in enumerate(orders) if order == direction or order not in DIRECTIONS]
        yield direction, correct[:, numbers].mean(axis=1)


def areas(data: xr.Dataset, measures: Mapping[str, Area], statistics: Statistics) -> Iterator[Score]:
    """Areas below the accuracy in both directions: ``auc`` becomes ``negative_auc`` and ``positive_auc``."""
    for direction, values in directions(data):
        estimates = bootstrap(partial(_areas, values, tuple(measures.values())), len(values), statistics)
        for name, value, low, high in zip(measures, *estimates, strict=True):
            better = "higher" if direction == "negative" else "lower"
            yield Score(f"{direction}_{name}", float(value), float(low), float(high), len(values), better)


def accuracies(data: xr.Dataset, x: Floats, statistics: Statistics) -> Iterator[CurvePoint]:
    """The accuracy of the images at each ``x``, in both directions."""
    for direction, values in directions(data):
        for point in zip(x, *bootstrap(partial(_accuracy, values), len(values), statistics), strict=True):
            yield CurvePoint(direction, *map(float, point))


def _accuracy(values: Floats, drawn: Floats) -> Floats:
    accuracy: Floats = drawn @ values / drawn.sum(axis=1, keepdims=True)
    return accuracy


def _areas(values: Floats, measures: tuple[Area, ...], drawn: Floats) -> Floats:
    accuracy = _accuracy(values, drawn)
    return np.stack([area(accuracy) for area in measures], axis=1)


def mean(
    name: str, values: Float[ndarray, " image"], statistics: Statistics, *, better: str, images: int | None = None
) -> Score:
    """The mean over images; NaN marks an image without a value."""
    value, low, high, count = (column[0] for column in estimate(values.astype(np.float64)[:, None], statistics))
    return Score(name, float(value), float(low), float(high), int(count) if images is None else images, better)
