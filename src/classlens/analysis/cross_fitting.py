"""Scores of doubt of every image of a store, each by a regression that did not see the image."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from numpy import ndarray

from classlens.analysis.doubt import DOUBT_METHODS, Decisions, fit_doubt
from classlens.analysis.measured_store import MeasuredStore
from classlens.core.stats import Statistics
from classlens.errors import ClasslensError
from classlens.extras import require_extras


def cross_fitted_doubt(
    store: MeasuredStore, images: pd.DataFrame, statistics: Statistics
) -> Float[ndarray, " images"] | str:
    """The trajectory's doubt of each image of a store, or why there is none; see ``cross_fitted``."""
    correct = images["correct"].to_numpy(dtype=np.float64)
    if np.isnan(correct).all():
        return "the images have no labels: measure a data set that has them"
    try:
        require_extras("probes", "the score of doubt")
    except ClasslensError as error:
        return str(error)
    decisions = Decisions.joined([Decisions.of(batch) for batch in store.batches()])
    doubt = cross_fitted(decisions, correct == 0, ~np.isnan(correct), statistics.seed)
    if doubt is None:
        return "a half of the labeled images has no wrong or no right prediction: measure more or harder images"
    return doubt


def cross_fitted(
    decisions: Decisions, wrong: Bool[ndarray, " images"], labeled: Bool[ndarray, " images"], seed: int
) -> Float[ndarray, " images"] | None:
    """Probability of being wrong, by the method ``trajectory`` of ``DOUBT_METHODS``; None where it cannot be fitted.

    Labeled images are split in halves by the seed alone, and each half is scored by the regression of the other. An
    image without a label is in neither half and gets the mean of both.
    """
    order = np.random.default_rng(seed).permutation(np.flatnonzero(labeled))
    halves = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    if any(wrong[half].all() or not wrong[half].any() for half in halves):
        return None
    method = DOUBT_METHODS["trajectory"]
    first, second = (fit_doubt(method, decisions.part(half), wrong[half]) for half in halves)
    doubt = np.zeros(len(wrong))
    doubt[halves[1]] = first(decisions.part(halves[1]))
    doubt[halves[0]] = second(decisions.part(halves[0]))
    others = np.flatnonzero(~labeled)
    if len(others):
        doubt[others] = (first(decisions.part(others)) + second(decisions.part(others))) / 2
    return doubt
