"""Paired comparisons of two classifiers on the same images: flips, calibration, and corrections for many tests."""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from classlens.core.intervals import Ends
from classlens.core.stats import ratio

CALIBRATION_BINS = 15
"""Bins of equal width of the calibration error, as published."""
_LEAST = float(np.finfo(np.float64).tiny)


def mcnemar(fixed: Int[ndarray, "*shape"], broken: Int[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
    """Exact two-sided p values of McNemar's test (McNemar, 1947), in (0, 1]; 1 where nothing flips.

    Under the null hypothesis a flip goes either way with probability 1/2, so that the smaller count is binomial.

    Examples:
        >>> mcnemar(np.array([1, 0]), np.array([5, 0]))
        array([0.21875, 1.     ])
    """
    from scipy.stats import binomtest

    pairs, index = np.unique(np.stack([fixed.ravel(), broken.ravel()], axis=1), axis=0, return_inverse=True)
    p = [binomtest(int(hits), int(hits + misses)).pvalue if hits + misses else 1.0 for hits, misses in pairs]
    return np.maximum(np.array(p, dtype=np.float64), _LEAST)[index.ravel()].reshape(fixed.shape)


def paired_share_interval(
    fixed: Int[ndarray, "*shape"],
    broken: Int[ndarray, "*shape"],
    trials: Int[ndarray, "*shape"],
    confidence: float = 0.95,
) -> Ends:
    """Adjusted Wald interval of the difference of two paired shares (Agresti and Min, 2005); NaN without a trial.

    The share of the second is ``(fixed - broken) / trials`` above that of the first. With 1/2 added to each of the four
    cells, ``n = trials + 2``, ``s`` the sum and ``d`` the difference of both counts, the interval is
    ``d / n ± z √(s - d² / n) / n``. It has a width where nothing flips.

    Examples:
        >>> low, high = paired_share_interval(np.array([0]), np.array([0]), np.array([50]))
        >>> low.round(3), high.round(3)
        (array([-0.038]), array([0.038]))
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    count = np.where(trials > 0, trials + 2.0, np.nan)
    apart, flips = (fixed - broken) / count, fixed + broken + 1.0
    half = z * np.sqrt(flips - apart**2 * count) / count
    return np.clip(apart - half, -1, 1), np.clip(apart + half, -1, 1)


def paired_t(
    mean: Float[ndarray, " tests"], squares: Float[ndarray, " tests"], count: Int[ndarray, " tests"]
) -> tuple[Float[ndarray, " tests"], Float[ndarray, " tests"]]:
    """Standardized effects of paired differences, and two-sided p values of Student's t test; NaN below two pairs.

    The effect is the mean difference over its standard deviation (Cohen's d of pairs). It is 0 where all differences
    are 0, and infinite where they are all the same and not 0. ``squares`` is the sum of squared deviations.

    Examples:
        >>> effect, p = paired_t(np.array([2.0]), np.array([2.0]), np.array([3]))
        >>> effect, p.round(4)
        (array([2.]), array([0.0742]))
    """
    from scipy.stats import t

    deviation = np.sqrt(ratio(squares, count - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        effect = np.where(mean == 0, np.where(count > 1, 0.0, np.nan), mean / deviation)
    p = np.full(len(mean), np.nan)
    tested = count > 1
    p[tested] = 2 * t.sf(np.abs(effect[tested]) * np.sqrt(count[tested]), count[tested] - 1)
    return effect, np.maximum(p, _LEAST)


def adjusted(p: Float[ndarray, " tests"]) -> Float[ndarray, " tests"]:
    """p values with the correction of Benjamini and Hochberg (1995); NaN stay NaN and do not count.

    Rejecting those of at most ``q`` keeps the expected share of false ones among the rejected at or below ``q``.

    Examples:
        >>> adjusted(np.array([0.01, np.nan, 0.04])).round(2)
        array([0.02,  nan, 0.04])
    """
    from scipy.stats import false_discovery_control

    corrected = np.full(len(p), np.nan)
    present = ~np.isnan(p)
    if present.any():
        corrected[present] = false_discovery_control(p[present])
    return corrected


def calibration_error(
    confidence: Float[ndarray, " images"], right: Bool[ndarray, " images"]
) -> Callable[[Float[ndarray, "draws images"]], Float[ndarray, "draws 1"]]:
    """A statistic for ``core.stats.bootstrap``: the expected calibration error for images drawn ``counts`` times.

    ``Σ |right - confidence| / n`` over bins of equal width, with the sums over the images of a bin before the absolute
    value. Source: Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017.

    Examples:
        >>> statistic = calibration_error(np.array([0.9, 0.9]), np.array([True, False]))
        >>> statistic(np.ones((1, 2))).round(3)
        array([[0.4]])
    """
    bins = np.clip((confidence * CALIBRATION_BINS).astype(np.int64), 0, CALIBRATION_BINS - 1)
    gaps = np.zeros((len(bins), CALIBRATION_BINS))
    gaps[np.arange(len(bins)), bins] = right - confidence

    def statistic(counts: Float[ndarray, "draws images"]) -> Float[ndarray, "draws 1"]:
        return ratio(np.abs(counts @ gaps).sum(axis=1), counts.sum(axis=1))[:, None]

    return statistic
