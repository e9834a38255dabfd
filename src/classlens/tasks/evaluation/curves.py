"""Accuracy along a removal, and the area below it, with intervals over images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from classlens.core.stats import Statistics, bootstrap, estimate
from classlens.tasks.evaluation.metric import CurvePoint, Score

Floats = ndarray[Any, np.dtype[np.floating[Any]]]
Area = Callable[[Float[ndarray, "draws places"]], Float[ndarray, " draws"]]

DIRECTIONS = ("negative", "positive")
"""The least important go first, or the most important."""


def trapezoid(x: Floats) -> Area:
    """The area below curves over rising ``x``, divided by its span: 1 for an accuracy of 1 everywhere."""
    span = x[-1] - x[0] if len(x) > 1 else 1.0
    weights = np.zeros(len(x))
    weights[1:] += np.diff(x) / 2
    weights[:-1] += np.diff(x) / 2
    if len(x) == 1:
        weights[:] = 1.0
    return lambda curves: curves @ weights / span


def directions(
    correct: Float[ndarray, "image order place"], orders: list[str]
) -> Iterator[tuple[str, Float[ndarray, "image place"]]]:
    """Each direction with how often an image was right there; random orders count for both, averaged."""
    for direction in DIRECTIONS:
        chosen = [number for number, order in enumerate(orders) if order == direction or order.startswith("random")]
        yield direction, correct[:, chosen].mean(axis=1)


def areas(
    values: Float[ndarray, "image place"], how: Statistics, found: dict[str, Area], *, better: str
) -> Iterator[Score]:
    """Areas below the accuracy of the images, each by its name."""

    def statistic(drawn: Floats) -> Floats:
        accuracy = drawn @ values / drawn.sum(axis=1, keepdims=True)
        return np.stack([area(accuracy) for area in found.values()], axis=1)

    value, low, high = bootstrap(statistic, len(values), how)
    for number, name in enumerate(found):
        yield Score(name, float(value[number]), float(low[number]), float(high[number]), len(values), better)


def mean(
    name: str, values: Float[ndarray, " image"], how: Statistics, *, better: str, images: int | None = None
) -> Score:
    """The mean over images; NaN are images without a value."""
    value, low, high, there = (part[0] for part in estimate(values.astype(np.float64)[:, None], how))
    return Score(name, float(value), float(low), float(high), int(there) if images is None else images, better)


def accuracies(name: str, x: Floats, values: Float[ndarray, "image place"], how: Statistics) -> Iterator[CurvePoint]:
    """The accuracy of the images at each place."""
    found = bootstrap(lambda drawn: drawn @ values / drawn.sum(axis=1, keepdims=True), len(values), how)
    for place, value, low, high in zip(x, *found, strict=True):
        yield CurvePoint(name, float(place), float(value), float(low), float(high))
