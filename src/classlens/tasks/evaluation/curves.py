"""Accuracy along a removal, and the area below it, with intervals over images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy import ndarray

from classlens.core.stats import Statistics, bootstrap, interval, ratio, resample
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
        better = "higher" if direction == "negative" else "lower"
        names = [f"{direction}_{name}" for name in measures]
        areas_of = partial(_areas, values, tuple(measures.values()))
        yield from scores(names, areas_of, len(values), statistics, better=better)


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


def scores(
    names: Sequence[str],
    statistic: Callable[[Float[ndarray, "draws images"]], Float[ndarray, "draws columns"]],
    images: int,
    statistics: Statistics,
    *,
    better: str,
) -> Iterator[Score]:
    """A score for each column of a statistic, as ``classlens.core.stats.bootstrap`` takes it."""
    value = statistic(np.ones((1, images)))[0]
    resampled = resample(statistic, images, statistics) if images else value[None]
    ends = zip(*interval(resampled, statistics), strict=True)
    for name, of_all, (low, high), column in zip(names, value, ends, resampled.T, strict=True):
        yield Score(name, float(of_all), float(low), float(high), images, better, column)


def mean(
    name: str, values: Float[ndarray, " image"], statistics: Statistics, *, better: str, images: int | None = None
) -> Score:
    """The mean over images; NaN marks an image without a value."""
    present = ~np.isnan(values)
    sums = np.column_stack([np.where(present, values, 0.0), present]).astype(np.float64)

    def means(drawn: Floats) -> Floats:
        total, count = (drawn @ sums).T
        return ratio(total, count)[:, None]

    (score,) = scores([name], means, len(values), statistics, better=better)
    return score._replace(images=int(present.sum()) if images is None else images)
