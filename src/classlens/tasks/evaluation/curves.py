"""Accuracy or probability along a removal, and the area below it, with intervals over images."""

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
PROBABILITY_AXES = CurveAxes("share of the pixels changed", "probability of the class")


def trapezoid(x: Floats) -> Area:
    """The area below curves over rising ``x``, divided by its span: 1 for an accuracy of 1 everywhere."""
    span = x[-1] - x[0] if len(x) > 1 else 1.0
    weights = np.zeros(len(x))
    weights[1:] += np.diff(x) / 2
    weights[:-1] += np.diff(x) / 2
    if len(x) == 1:
        weights[:] = 1.0
    return lambda curves: curves @ weights / span


def directions(data: xr.Dataset, variable: str = "correct") -> Iterator[tuple[str, Float[ndarray, "image point"]]]:
    """Values of each image, such as whether it is predicted correctly, by direction; random orders count for both."""
    of_orders, orders = data[variable].values.astype(np.float64), list(data["order"].values)
    for direction in DIRECTIONS:
        numbers = [number for number, order in enumerate(orders) if order == direction or order not in DIRECTIONS]
        yield direction, of_orders[:, numbers].mean(axis=1)


def areas(
    data: xr.Dataset, measures: Mapping[str, Area], statistics: Statistics, variable: str = "correct"
) -> Iterator[Score]:
    """Areas below the mean over images in both directions: ``auc`` becomes ``negative_auc`` and ``positive_auc``."""
    for direction, values in directions(data, variable):
        better = "higher" if direction == "negative" else "lower"
        names = [f"{direction}_{name}" for name in measures]
        areas_of = partial(_areas, values, tuple(measures.values()))
        yield from scores(names, areas_of, len(values), statistics, better=better)


def mean_points(data: xr.Dataset, x: Floats, statistics: Statistics, variable: str = "correct") -> Iterator[CurvePoint]:
    """The mean over images at each ``x``, such as the accuracy, in both directions."""
    for direction, values in directions(data, variable):
        for point in zip(x, *bootstrap(partial(_mean, values), len(values), statistics), strict=True):
            yield CurvePoint(direction, *map(float, point))


def _mean(values: Floats, drawn: Floats) -> Floats:
    mean_curves: Floats = drawn @ values / drawn.sum(axis=1, keepdims=True)
    return mean_curves


def _areas(values: Floats, measures: tuple[Area, ...], drawn: Floats) -> Floats:
    mean_curves = _mean(values, drawn)
    return np.stack([area(mean_curves) for area in measures], axis=1)


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
