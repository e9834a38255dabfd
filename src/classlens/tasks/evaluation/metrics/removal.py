"""Token removal: how accuracy falls as tokens are removed in order of importance."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from classlens.core.arrays import Array
from classlens.core.stats import Statistics
from classlens.models.view import Tokens
from classlens.store.schema import Variable
from classlens.tasks.evaluation.curves import ACCURACY_AXES, DIRECTIONS, Area, Floats, areas, mean_points, trapezoid
from classlens.tasks.evaluation.image_batch import ImageBatch, Importance
from classlens.tasks.evaluation.metric import CurvePoint, Metric, MetricAxes, Score


class Removal(Metric):
    """Accuracy as image tokens are removed, the least important first (``negative``) or the most important first
    (``positive``), until one is left.

    Tokens are dropped from the sequence after position embeddings; prefix tokens stay. Equal values keep the order of
    the grid. ``random`` has one order per seed, the same for all images, and counts for both directions. Source: Vilas
    et al., *Analyzing Vision Transformers for Image Classification in Class Embedding Space*, NeurIPS 2023,
    section 4.2.
    """

    label = "Removal"
    about = "accuracy as tokens are removed in order of importance (the paper's measure)"
    variables = {
        "correct": Variable(
            ("image", "order", "kept"),
            np.dtype("int8"),
            -1,
            "1 where the prediction is correct with this number of image tokens kept, -1 without a class",
        )
    }
    measures = {
        "negative_auc_reference": "removal, least first, AUC as published",
        "negative_auc": "removal, least first, AUC",
        "positive_auc_reference": "removal, most first, AUC as published",
        "positive_auc": "removal, most first, AUC",
    }
    curves = {
        "negative": "tokens removed, least important first",
        "positive": "tokens removed, most important first",
    }
    curve_axes = ACCURACY_AXES

    def coords(self, axes: MetricAxes) -> dict[str, Array]:
        settings, (rows, columns) = axes.settings, axes.grid
        orders = [f"random {settings.seed + number}" for number in range(settings.permutations)]
        return {
            "order": np.array(orders if axes.drawn else DIRECTIONS),
            "kept": numbers_kept(rows * columns, settings.steps),
        }

    def passes(self, axes: MetricAxes) -> float:
        return prod(map(len, self.coords(axes).values())) / 2  # sequences of half the tokens, on average

    def measure(self, batch: ImageBatch, importance: Importance) -> dict[str, Array]:
        tokens = batch.trace.recording.tokens
        orders = _orders(batch, importance, tokens)
        prefix = torch.arange(len(tokens.prefix))
        numbers = numbers_kept(orders.shape[2], batch.settings.steps)
        count = orders.shape[0] * orders.shape[1]
        image = torch.arange(len(batch)).repeat_interleave(orders.shape[1])
        correct = np.empty((len(batch), orders.shape[1], len(numbers)), dtype=np.int8)
        correct[:, :, 0] = batch.correct_unchanged[:, None]
        for column, number in enumerate(numbers[1:], start=1):
            kept_image_tokens = (orders[:, :, :number] + len(prefix)).flatten(0, 1).sort(dim=1).values
            kept = torch.cat([prefix.expand(count, -1), kept_image_tokens], dim=1)
            # A pass has at most as many tokens as the unchanged batch.
            step = max(1, len(batch) * tokens.count // kept.shape[1]) if batch.subsets.shortens else len(batch)
            for start in range(0, count, step):
                rows = slice(start, start + step)
                logits = batch.subsets.logits(image[rows], kept[rows])
                correct.reshape(count, -1)[rows, column] = batch.correct(logits, image[rows])
        return {"correct": correct}

    def scores(self, data: xr.Dataset, statistics: Statistics) -> Iterator[Score]:
        measures = {"auc_reference": auc_reference(data["kept"].values), "auc": trapezoid(_share_removed(data))}
        yield from areas(data, measures, statistics)

    def points(self, data: xr.Dataset, statistics: Statistics) -> Iterator[CurvePoint]:
        yield from mean_points(data, _share_removed(data), statistics)


def _share_removed(data: xr.Dataset) -> Floats:
    numbers = data["kept"].values
    share: Floats = 1 - numbers / numbers[0]
    return share


def numbers_kept(tokens: int, steps: int | Literal["all"]) -> Int[ndarray, " kept"]:
    """Numbers of image tokens that are kept, from all to one: every number, or ``steps`` of them, evenly spread."""
    if steps == "all" or steps >= tokens:
        return np.arange(tokens, 0, -1)
    return np.unique(np.linspace(1, tokens, steps).round().astype(np.int64))[::-1].copy()


def auc_reference(numbers: Int[ndarray, " kept"]) -> Area:
    """``Σ acc / (max acc · N)`` over ``n = N-1 … 1``, as published, with ``N`` image tokens.

    Accuracies at numbers that were not measured are interpolated. NaN for an accuracy of 0 everywhere.
    """
    total = int(numbers[0])
    # From accuracies at the measured numbers to those at all numbers.
    weights = np.stack([np.interp(np.arange(1, total), numbers[::-1], row[::-1]) for row in np.eye(len(numbers))])

    def area(curves: Floats) -> Floats:
        accuracy = curves @ weights
        largest = accuracy.max(axis=1, initial=0.0)
        undefined = np.full(len(accuracy), np.nan)
        shares: Floats = np.divide(accuracy.sum(axis=1), largest * total, out=undefined, where=largest > 0)
        return shares

    return area


def _orders(batch: ImageBatch, importance: Importance, tokens: Tokens) -> Int[Tensor, "image order token"]:
    """Numbers of image tokens, the token that is kept longest first."""
    if importance.drawn:
        count = tokens.grid[0] * tokens.grid[1]
        seeds = [batch.settings.seed + number for number in range(batch.settings.permutations)]
        drawn = [torch.randperm(count, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(drawn).expand(len(batch), -1, -1)
    return both_orders(batch.maps(importance))


def both_orders(importance: Float[Tensor, "image token"]) -> Int[Tensor, "image order token"]:
    """Tokens from the most to the least important, equal ones in the order of the grid; and the reverse."""
    most_first = importance.argsort(dim=1, descending=True, stable=True)
    return torch.stack([most_first, most_first.flip(1)], dim=1)


METRIC = Removal()
