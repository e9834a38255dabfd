"""Decision trajectories of a batch of a store, as experiments read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from classlens import palette
from classlens.analysis.experiment import TWIN, Key, Reduction, averages, model_and_twin
from classlens.analysis.labels import Label
from classlens.analysis.measured_store import MeasuredStore, Requirement, StoredBatch
from classlens.core.arrays import Array
from classlens.core.stats import Statistics
from classlens.core.trajectories import margin
from classlens.tasks.tokens.schema import GROUP_TRAJECTORY, TRAJECTORY

OUTCOMES = ("all", "correct", "wrong")
CLASSES, GROUPS = "classes", "groups"
"""Subjects of a trajectory: all classes, or groups of them by ``measure(label_groups=…)``."""
KEY_LABELS: Mapping[str, Label] = {
    "all": Label("all images", palette.MUTED),
    "correct": Label("right predictions", palette.BLUE),
    "wrong": Label("wrong predictions", palette.VERMILLION),
    CLASSES: Label("classes"),
    GROUPS: Label("groups of classes"),
}
KEYS = ("condition", "classes", "outcome", "measure")
NEEDS = (Requirement(trajectory=True), TWIN, Requirement(labels=True, optional=True))
CORRECT = "correct"
"""The value that tells right from wrong predictions, in the reduction of an experiment."""


@dataclass(frozen=True, eq=False)
class Trajectories:
    """The trajectories of the images of a batch after each block, ``[image, block]``; see ``DepthFacts``.

    The embeddings are left out: measures go over blocks, as published.
    """

    top: Array
    top_logit: Array
    final_logit: Array
    rank: Array
    log_probability: Array
    margin: Array
    entropy: Array
    known: Array
    """bool ``[image]``: False for images that the condition does not have, or whose class has no group."""
    correct: Array
    """``[image]``: 1 for a right prediction, 0 for a wrong one, NaN for an image without a label."""
    count: int
    """Number of classes or groups."""

    @classmethod
    def of(cls, batch: StoredBatch, condition: str, classes: str = CLASSES) -> Trajectories:
        """Those of a condition, of ``CLASSES`` or ``GROUPS``."""
        prefix = TRAJECTORY if classes == CLASSES else GROUP_TRAJECTORY

        def after_blocks(name: str) -> Array:
            return batch.values(f"{prefix}_{name}", condition)[:, 1:]

        def numbers(name: str) -> Array:
            return after_blocks(name).astype(np.float64)

        top, top_logit, logit, rank = after_blocks("top"), numbers("top_logit"), numbers("logit"), after_blocks("rank")
        target, label, store = batch.values("target", condition), batch.values("label", condition), batch.store
        correct = batch.values("correct", condition).astype(np.float64)
        if classes == GROUPS:
            target = store.group_of(target)
            correct = np.where((label < 0) | (target < 0), -1, top[:, -1, 0] == target).astype(np.float64)
        return cls(
            top,
            top_logit,
            numbers("final_logit"),
            rank,
            logit - numbers("logsumexp"),
            margin(top, top_logit, target, logit),
            numbers("entropy"),
            batch.measured(condition) & (top[:, -1, 0] >= 0) & (rank[:, -1] >= 0),
            np.where(correct < 0, np.nan, correct),
            store.num_classes if classes == CLASSES else store.label_groups,
        )

    def of_known(self, values: Array) -> Array:
        """Values of images, ``[image, column]``, NaN for those without."""
        values = values.astype(np.float64)
        values = values if values.ndim > 1 else values[:, None]
        return np.where(self.known[:, None], values, np.nan)


Measures = Callable[[Trajectories], Mapping[str, Array]]
"""From trajectories to measures of images by name, ``[image]`` or ``[image, block]``."""


def update_of(measures: Measures) -> Callable[[StoredBatch], Reduction]:
    """The update of an experiment: measures of each image and whether it is right, by condition and classes."""

    def update(batch: StoredBatch) -> Reduction:
        values: dict[Key, Array] = {}
        for condition in decoded_conditions(batch.store):
            for classes in (CLASSES, GROUPS) if batch.store.label_groups else (CLASSES,):
                found = Trajectories.of(batch, condition, classes)
                of_images = measures(found)
                values |= {(condition, classes, name): found.of_known(numbers) for name, numbers in of_images.items()}
                values[condition, classes, CORRECT] = found.correct[:, None]
        return Reduction(values)

    return update


def decoded_conditions(store: MeasuredStore) -> tuple[str, ...]:
    """The model, its random twin and the tuned lens, where they were measured."""
    return (*model_and_twin(store), *(["tuned_lens"] if store.has("tuned_lens") else []))


def by_outcome(values: Mapping[Key, Array], statistics: Statistics, blocks: range | None = None) -> pd.DataFrame:
    """Means over all images, those with a right prediction and those with a wrong one.

    ``values`` go by condition, classes and measure, those of ``CORRECT`` among them. Columns: ``KEYS``.
    """
    split: dict[Key, Array] = {}
    for (condition, classes, measure), of_images in values.items():
        if measure == CORRECT:
            continue
        right = values[condition, classes, CORRECT]
        for outcome, chosen in zip(OUTCOMES, (np.ones_like(right), right, 1 - right), strict=True):
            if outcome == "all" or bool((chosen == 1).any()):
                split[condition, classes, outcome, measure] = np.where(chosen == 1, of_images, np.nan)
    return averages(KEYS, split, statistics, blocks=blocks)
