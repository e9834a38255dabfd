"""How well a score of doubt tells wrong predictions from right ones, for images drawn any number of times."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from classlens.core.stats import ratio

TPR = 0.95
"""Share of wrong predictions that are doubted where ``fpr`` is read."""
MEASURES = ("auroc", "aupr", "aurc", "excess_aurc", "fpr")
LOWER_IS_BETTER = ("aurc", "excess_aurc", "fpr")

Counts = Float[ndarray, "draws images"]


def detection(
    doubt: Float[ndarray, " images"], wrong: Bool[ndarray, " images"]
) -> Callable[[Counts], Float[ndarray, "draws measures"]]:
    """A statistic for ``core.stats.bootstrap``: the measures of ``MEASURES`` for images drawn ``counts`` times.

    ``auroc``: probability that a wrong prediction is doubted more than a right one, ties counting one half. ``aupr``:
    average precision, wrong predictions being positive. ``aurc``: area under the risk-coverage curve, the mean over
    ``n`` of the share of wrong predictions among the ``n`` least doubted images, expected over the orders of images
    with the same doubt. ``excess_aurc``: the same less the area of an order that doubts exactly the wrong ones.
    ``fpr``: share of right predictions that are doubted where at least 95 % of the wrong ones are. NaN where undefined:
    ``aupr`` without a wrong prediction, ``auroc`` and ``fpr`` without a wrong or without a right one.

    Source: Geifman, Uziel and El-Yaniv, *Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers*, ICLR 2019.

    Examples:
        >>> statistic = detection(np.array([0.1, 0.2, 0.9]), np.array([False, False, True]))
        >>> statistic(np.ones((1, 3)))[0].round(3).tolist()
        [1.0, 1.0, 0.111, 0.0, 0.0]
    """
    levels, level = np.unique(doubt, return_inverse=True)
    order = np.argsort(level, kind="stable")
    starts = np.searchsorted(level[order], np.arange(len(levels)))

    def statistic(counts: Counts) -> Float[ndarray, "draws measures"]:
        total = np.add.reduceat(counts[:, order], starts, axis=1)
        errors = np.add.reduceat((counts * wrong)[:, order], starts, axis=1)
        area = _risk_coverage_area(total, errors)
        right, all_wrong = (total - errors).sum(axis=1, keepdims=True), errors.sum(axis=1, keepdims=True)
        least = _risk_coverage_area(np.hstack([right, all_wrong]), np.hstack([np.zeros_like(right), all_wrong]))
        return np.stack([_auroc(total, errors), _aupr(total, errors), area, area - least, _fpr(total, errors)], axis=1)

    return statistic


Levels = Float[ndarray, "draws levels"]


def _auroc(total: Levels, errors: Levels) -> Float[ndarray, " draws"]:
    right = total - errors
    less_doubted = np.cumsum(right, axis=1) - right / 2
    pairs = errors.sum(axis=1) * right.sum(axis=1)
    return ratio((errors * less_doubted).sum(axis=1), pairs)


def _aupr(total: Levels, errors: Levels) -> Float[ndarray, " draws"]:
    doubted, caught = _from_most(total), _from_most(errors)
    precision = np.divide(caught, doubted, out=np.zeros_like(caught), where=doubted > 0)
    return ratio((precision * errors).sum(axis=1), errors.sum(axis=1))


def _fpr(total: Levels, errors: Levels) -> Float[ndarray, " draws"]:
    caught, flagged = _from_most(errors), _from_most(total - errors)
    # Counts are whole numbers; a share of 95 % is not spoiled by rounding.
    enough = caught >= TPR * caught[:, :1] - 1e-9
    least = np.where(enough, flagged, np.inf).min(axis=1)
    return np.where(caught[:, 0] > 0, ratio(least, flagged[:, 0]), np.nan)


def _risk_coverage_area(total: Levels, errors: Levels) -> Float[ndarray, " draws"]:
    """Mean over ``n`` of the expected risk of the ``n`` least doubted images.

    Within a level of ``m`` images with ``e`` errors, after ``n₀`` images with ``e₀``, the expected risk of ``n`` images
    is ``(e₀ + (n - n₀) e/m) / n``; its sum over the level is ``e + (e₀ - n₀ e/m) (H(n₀ + m) - H(n₀))``.
    """
    from scipy.special import digamma

    after, errors_after = np.cumsum(total, axis=1), np.cumsum(errors, axis=1)
    before, errors_before = after - total, errors_after - errors
    share = np.divide(errors, total, out=np.zeros_like(errors), where=total > 0)
    harmonic = digamma(after + 1) - digamma(before + 1)
    return ratio((errors + (errors_before - before * share) * harmonic).sum(axis=1), after[:, -1])


def risk_coverage(
    doubt: Float[ndarray, " images"], wrong: Bool[ndarray, " images"]
) -> tuple[Float[ndarray, " points"], Float[ndarray, " points"]]:
    """Coverage and risk: shares of images kept, and of wrong predictions among them, the most doubted left out first.

    One point for each level of doubt; images with the same doubt are kept or left out together.

    Examples:
        >>> risk_coverage(np.array([0.1, 0.9]), np.array([False, True]))
        (array([0.5, 1. ]), array([0. , 0.5]))
    """
    _, level = np.unique(doubt, return_inverse=True)
    kept, errors = np.cumsum(np.bincount(level)), np.cumsum(np.bincount(level, wrong))
    return kept / len(doubt), errors / kept


def _from_most(values: Levels) -> Levels:
    """Sums from each level to the most doubted one."""
    return np.asarray(np.cumsum(values[:, ::-1], axis=1)[:, ::-1])
