"""Token removal: how accuracy falls as tokens are taken away in order of importance (the paper, section 4.2)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from classlens.core.arrays import Array
from classlens.core.stats import Statistics
from classlens.lens.lens import Lens
from classlens.models.view import Tokens
from classlens.store.schema import Variable
from classlens.tasks.evaluation.curves import DIRECTIONS, Area, Floats, accuracies, areas, directions, trapezoid
from classlens.tasks.evaluation.image_batch import EvaluationSettings, ImageBatch, Importance
from classlens.tasks.evaluation.metric import CurveAxes, CurvePoint, Metric, MetricSchema, Score


class Removal(Metric):
    """Keep the ``n`` most important image tokens (``negative``: the least important go first) or the ``n`` least
    important ones (``positive``), ``n`` from all to one, and see how often the class is still on top.

    Tokens are dropped after position embeddings and really are gone; prefix tokens stay. Equal values keep the order of
    the grid. ``random`` takes one order a seed, the same for all images, and counts for both directions, as published.
    """

    label = "Removal"
    about = "accuracy as tokens are removed in order of importance (the paper's measure)"
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
    curve_axes = CurveAxes("share removed or masked", "top-1 accuracy")

    def schema(self, lens: Lens, tokens: Tokens, importance: Importance, settings: EvaluationSettings) -> MetricSchema:
        orders = _order_names(importance, settings)
        numbers = numbers_kept(tokens.grid[0] * tokens.grid[1], settings.steps)
        note = "1 where the class is on top with so many image tokens kept, -1 without a class"
        correct = Variable(("image", "order", "kept"), np.dtype("int8"), -1, note)
        return MetricSchema(
            {"correct": correct},
            {"order": len(orders), "kept": len(numbers)},
            {"order": np.array(orders), "kept": numbers},
        )

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
            chosen = (orders[:, :, :number] + len(prefix)).flatten(0, 1).sort(dim=1).values
            kept = torch.cat([prefix.expand(count, -1), chosen], dim=1)
            # As many tokens at once as the images have when they are whole.
            step = max(1, len(batch) * tokens.count // kept.shape[1]) if batch.subsets.shortens else len(batch)
            for start in range(0, count, step):
                some = slice(start, start + step)
                hits = batch.correct(batch.subsets.logits(image[some], kept[some]), image[some])
                correct.reshape(count, -1)[some, column] = hits
        return {"correct": correct}

    def scores(self, data: xr.Dataset, statistics: Statistics) -> Iterator[Score]:
        numbers = data["kept"].values
        removed = 1 - numbers / numbers[0]
        for direction, values in directions(data["correct"].values.astype(float), list(data["order"].values)):
            found: dict[str, Area] = {
                f"{direction}_auc_reference": auc_reference(numbers),
                f"{direction}_auc": trapezoid(removed),
            }
            yield from areas(values, statistics, found, better="higher" if direction == DIRECTIONS[0] else "lower")

    def points(self, data: xr.Dataset, statistics: Statistics) -> Iterator[CurvePoint]:
        numbers = data["kept"].values
        for direction, values in directions(data["correct"].values.astype(float), list(data["order"].values)):
            yield from accuracies(direction, 1 - numbers / numbers[0], values, statistics)


def numbers_kept(tokens: int, steps: int | None) -> Int[ndarray, " kept"]:
    """How many image tokens are kept, from all to one: every number, or about so many of them, evenly spread."""
    if steps is None or steps >= tokens:
        return np.arange(tokens, 0, -1)
    return np.unique(np.linspace(1, tokens, steps).round().astype(np.int64))[::-1].copy()


def auc_reference(numbers: Int[ndarray, " kept"]) -> Area:
    """``Σ acc / (max acc · N)`` over ``n = N-1 … 1``, as published; between numbers that were left out, linear.

    ``N`` is the number of image tokens. NaN where nothing is ever right.
    """
    total = int(numbers[0])
    every = np.arange(1, total)
    basis = np.eye(len(numbers))
    # From accuracies at the numbers to those at every one.
    weights = np.stack([np.interp(every, numbers[::-1], row[::-1]) for row in basis])

    def area(curves: Floats) -> Floats:
        found = curves @ weights
        most = found.max(axis=1, initial=0.0)
        shares: Floats = np.divide(found.sum(axis=1), most * total, out=np.full(len(found), np.nan), where=most > 0)
        return shares

    return area


def _order_names(importance: Importance, settings: EvaluationSettings) -> list[str]:
    if importance.drawn:
        return [f"random {settings.seed + number}" for number in range(settings.permutations)]
    return list(DIRECTIONS)


def _orders(batch: ImageBatch, importance: Importance, tokens: Tokens) -> Int[Tensor, "image order token"]:
    """Image tokens, counted from the first of them, in the order in which they are kept."""
    if importance.drawn:
        count = tokens.grid[0] * tokens.grid[1]
        seeds = [batch.settings.seed + number for number in range(batch.settings.permutations)]
        drawn = [torch.randperm(count, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(drawn).expand(len(batch), -1, -1)
    return both_orders(batch.maps(importance))


def both_orders(importance: Float[Tensor, "image token"]) -> Int[Tensor, "image order token"]:
    """The most important first, and the least important first; equal ones in the order of the grid, and reversed."""
    best = importance.argsort(dim=1, descending=True, stable=True)
    return torch.stack([best, best.flip(1)], dim=1)


METRIC = Removal()
