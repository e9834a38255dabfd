"""Confidence intervals and tests over images: seeded and vectorized, with p values above 0.

Tokens of an image are not independent, so intervals and tests are over images. The paper's tests over tokens take
counts of values, which suffice for millions of tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from classlens.core.arguments import AtLeast1, Seed, Share, checked
from classlens.core.arrays import Array

Alternative = Literal["greater", "two-sided"]

# Numbers drawn at once: 32 MiB of float64.
_SCRATCH = 2**22
_LEAST = float(np.finfo(np.float64).tiny)


@checked
@dataclass(frozen=True)
class Statistics:
    """Settings of permutation tests and bootstrap intervals.

    Args:
        seed: random seed, 0 or more; default 0.
        permutations: number of random permutations of a test, 1 or more; default 10,000.
        resamples: number of bootstrap resamples of an interval, 1 or more; default 2,000.
        confidence: confidence level of intervals, between 0 and 1; default 0.95.

    Examples:
        >>> Statistics(seed=1).confidence
        0.95
    """

    seed: Seed = 0
    permutations: AtLeast1 = 10_000
    resamples: AtLeast1 = 2_000
    confidence: Share = 0.95


def ratio(part: Array, whole: Array) -> Float[ndarray, ...]:
    """``part / whole`` in float64; NaN where the whole is 0.

    Examples:
        >>> ratio(np.array([1, 0]), np.array([2, 0]))
        array([0.5, nan])
    """
    undefined = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    return np.asarray(np.divide(part, whole, out=undefined, where=whole > 0))


class Estimate(NamedTuple):
    """A mean over images with its interval and its number of images; NaN without images."""

    value: Float[ndarray, " columns"]
    low: Float[ndarray, " columns"]
    high: Float[ndarray, " columns"]
    images: Int[ndarray, " columns"]


class Test(NamedTuple):
    """A p value in (0, 1], and an effect in [-1, 1]: the rank-biserial correlation of a signed-rank test."""

    p: float
    effect: float


def estimate(
    values: Float[ndarray, "images columns"],
    statistics: Statistics,
    *,
    weights: Float[ndarray, "images columns"] | None = None,
    groups: Int[ndarray, " images"] | None = None,
) -> Estimate:
    """Means over images with percentile bootstrap intervals; NaN stands for an image without a value.

    ``weights`` makes a pooled mean ``Σ w·v / Σ w``, such as one over all tokens of all images. ``groups`` (classes)
    makes a mean of group means; a resample leaves out groups without a drawn image. All columns share their resamples.

    Examples:
        >>> estimate(np.array([[0.0], [1.0]]), Statistics()).value
        array([0.5])
    """
    present = ~np.isnan(values)
    weight = present.astype(np.float64) if weights is None else np.where(present, weights, 0.0)
    total = np.where(present, values, 0.0) * weight
    members = [slice(None)] if groups is None else _members(groups)

    def means(counts: Float[ndarray, "draws images"]) -> Float[ndarray, "draws columns"]:
        sums = np.zeros((len(counts), values.shape[1]))
        group_counts = np.zeros_like(sums)
        for group in members:
            denominator = counts[:, group] @ weight[group]
            sums += np.divide(
                counts[:, group] @ total[group], denominator, out=np.zeros_like(denominator), where=denominator > 0
            )
            group_counts += denominator > 0
        return np.divide(sums, group_counts, out=np.full_like(sums, np.nan), where=group_counts > 0)

    return Estimate(*bootstrap(means, len(values), statistics), present.sum(axis=0))


def bootstrap(
    statistic: Callable[[Float[ndarray, "draws images"]], Float[ndarray, "draws columns"]],
    images: int,
    statistics: Statistics,
) -> tuple[Float[ndarray, " columns"], Float[ndarray, " columns"], Float[ndarray, " columns"]]:
    """Values of a statistic of the images, with the lower and upper ends of percentile bootstrap intervals.

    ``statistic`` takes the number of draws of each image and returns one row for each resample, NaN where undefined.

    Examples:
        >>> hits, trials = np.array([[1.0], [3.0]]), np.array([[2.0], [4.0]])
        >>> bootstrap(lambda counts: (counts @ hits) / (counts @ trials), 2, Statistics())[0]
        array([0.66666667])
    """
    value = statistic(np.ones((1, images)))[0]
    if not images or not len(value):
        return value, value, value
    return value, *interval(resample(statistic, images, statistics), statistics)


def resample(
    statistic: Callable[[Float[ndarray, "draws images"]], Float[ndarray, "draws columns"]],
    images: int,
    statistics: Statistics,
) -> Float[ndarray, "resamples columns"]:
    """Values of a statistic, as for ``bootstrap``, in each resample; the same images are drawn for every statistic.

    Examples:
        >>> resample(lambda counts: counts @ np.array([[2.0], [2.0]]), 2, Statistics(resamples=3)).ravel()
        array([4., 4., 4.])
    """
    return np.concatenate([statistic(counts) for counts in _resamples(images, statistics)])


def interval(
    resampled: Float[ndarray, "resamples columns"], statistics: Statistics
) -> tuple[Float[ndarray, " columns"], Float[ndarray, " columns"]]:
    """Lower and upper ends of the percentile interval of resampled values; NaN where none is defined.

    Examples:
        >>> interval(np.arange(101.0)[:, None], Statistics(confidence=0.5))
        (array([25.]), array([75.]))
    """
    tail = (1 - statistics.confidence) / 2
    # nanquantile would warn about columns without any value; they stay NaN.
    defined = ~np.isnan(resampled).all(axis=0)
    low, high = np.full((2, resampled.shape[1]), np.nan)
    if defined.any():
        low[defined], high[defined] = np.nanquantile(resampled[:, defined], [tail, 1 - tail], axis=0)
    return low, high


def _members(groups: Int[ndarray, " images"]) -> list[Any]:
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)


def _resamples(images: int, statistics: Statistics) -> Iterator[Float[ndarray, "draws images"]]:
    """The number of draws of each image, for each resample."""
    rng = np.random.default_rng(statistics.seed)
    step = max(1, _SCRATCH // images)
    for start in range(0, statistics.resamples, step):
        draws = min(step, statistics.resamples - start)
        chosen = rng.integers(0, images, (draws, images)) + np.arange(draws)[:, None] * images
        yield np.bincount(chosen.ravel(), minlength=draws * images).reshape(draws, images).astype(np.float64)


def flip_signs(
    differences: Float[ndarray, "images columns"], statistics: Statistics, alternative: Alternative = "greater"
) -> Float[ndarray, " columns"]:
    """Permutation test of paired differences over images: under the null, both signs are equally likely.

    Returns ``(1 + hits) / (1 + permutations)`` for each column; NaN for a column without differences.

    Examples:
        >>> flip_signs(np.full((20, 1), 0.1), Statistics(permutations=999)).round(3)
        array([0.001])
    """
    present = ~np.isnan(differences)
    values = np.where(present, differences, 0.0).astype(np.float64)
    observed = values.sum(axis=0)
    # Sums that differ by rounding alone are ties, and count against the effect.
    slack = 1e-12 * np.abs(values).sum(axis=0)
    hits = np.zeros(values.shape[1], dtype=np.int64)
    rng = np.random.default_rng(statistics.seed)
    step = max(1, _SCRATCH // max(1, len(values)))
    for start in range(0, statistics.permutations, step):
        signs = rng.integers(0, 2, (min(step, statistics.permutations - start), len(values)), dtype=np.int8)
        sums = (2.0 * signs - 1.0) @ values
        if alternative == "greater":
            hits += (sums >= observed - slack).sum(axis=0)
        else:
            hits += (np.abs(sums) >= np.abs(observed) - slack).sum(axis=0)
    return np.where(present.any(axis=0), (1 + hits) / (1 + statistics.permutations), np.nan)


def shuffle_labels(
    first: Int[ndarray, " values"],
    second: Int[ndarray, " values"],
    values: Int[ndarray, " values"],
    statistics: Statistics,
    alternative: Alternative = "greater",
) -> float:
    """Permutation test of the difference of means between two groups, from the counts of each value.

    With shuffled labels, the counts of the first group follow a multivariate hypergeometric distribution. Drawing from
    it costs the same for a few tokens and for millions. Returns ``(1 + hits) / (1 + permutations)``; NaN for an empty
    group, and from 10⁹ tokens on, which numpy cannot draw.

    Examples:
        >>> shuffle_labels(np.array([9, 1]), np.array([1, 9]), np.array([0, 1]), Statistics())
        1.0
    """
    both = first + second
    occurs = both > 0
    first, both, values = first[occurs], both[occurs], values[occurs].astype(np.int64)
    size, total = int(first.sum()), int(both.sum())
    if size == 0 or size == total or total >= 10**9:
        return math.nan
    # The mean of the first group rises with its sum. Integers make ties exact.
    values = values - values.min()
    observed, expected = int(first @ values), Fraction(size * int(both @ values), total)
    distance = abs(observed - expected)
    rng = np.random.default_rng(statistics.seed)
    hits, step = 0, max(1, _SCRATCH // len(both))
    for start in range(0, statistics.permutations, step):
        draws = min(step, statistics.permutations - start)
        sums = rng.multivariate_hypergeometric(both, size, size=draws, method="marginals") @ values
        if alternative == "greater":
            hits += int((sums >= observed).sum())
        else:
            hits += int(((sums >= math.ceil(expected + distance)) | (sums <= math.floor(expected - distance))).sum())
    return (1 + hits) / (1 + statistics.permutations)


def wilcoxon(differences: Float[ndarray, " pairs"]) -> Test:
    """One-sided Wilcoxon signed-rank test of paired differences above 0, with its effect size.

    Exact for few pairs, otherwise scipy's normal approximation; NaN and differences of 0 are left out. The effect is
    the matched-pairs rank-biserial correlation ``(W⁺ - W⁻) / (W⁺ + W⁻)`` (Kerby, 2014).

    Examples:
        >>> wilcoxon(np.array([1.0, 2.0, 3.0, -0.5])).effect
        0.8
    """
    from scipy import stats

    differences = differences[~np.isnan(differences)]
    # Rounding errors must not break ties.
    scale = float(np.abs(differences).max(initial=0)) or 1.0
    differences = np.round(differences / scale, 12)
    nonzero = differences[differences != 0]
    if not len(nonzero):
        return Test(1.0 if len(differences) else math.nan, 0.0 if len(differences) else math.nan)
    result = stats.wilcoxon(nonzero, alternative="greater")
    largest = len(nonzero) * (len(nonzero) + 1) / 2
    return Test(max(float(result.pvalue), _LEAST), 2 * float(result.statistic) / largest - 1)


def wilcoxon_of_counts(values: Int[ndarray, " values"], counts: Int[ndarray, " values"]) -> Test:
    """``wilcoxon`` from the counts of each difference, by the normal approximation with a correction for ties.

    Examples:
        >>> wilcoxon_of_counts(np.array([-1, 0, 1]), np.array([10, 5, 30])).effect
        0.5
    """
    nonzero = (counts > 0) & (values != 0)
    if not nonzero.any():
        has_pairs = counts.sum() > 0
        return Test(1.0 if has_pairs else math.nan, 0.0 if has_pairs else math.nan)
    sizes, size_index = np.unique(np.abs(values[nonzero]), return_inverse=True)
    positive = np.bincount(size_index, np.where(values[nonzero] > 0, counts[nonzero], 0), minlength=len(sizes))
    tied = np.bincount(size_index, counts[nonzero], minlength=len(sizes))
    ranks = np.cumsum(tied) - tied + (tied + 1) / 2  # mean rank of each tie
    pairs = float(tied.sum())
    plus, largest = float(ranks @ positive), pairs * (pairs + 1) / 2
    variance = pairs * (pairs + 1) * (2 * pairs + 1) / 24 - float((tied**3 - tied).sum()) / 48
    z = (plus - largest / 2) / math.sqrt(variance)
    return Test(max(0.5 * math.erfc(z / math.sqrt(2)), _LEAST), 2 * plus / largest - 1)


def holm(p: Float[ndarray, " tests"]) -> Float[ndarray, " tests"]:
    """p values with Holm's step-down correction for multiple tests; NaN stay NaN and do not count.

    Examples:
        >>> holm(np.array([0.01, 0.04, np.nan])).round(2)
        array([0.02, 0.04,  nan])
    """
    corrected = np.full(len(p), np.nan)
    present = np.flatnonzero(~np.isnan(p))
    order = present[np.argsort(p[present])]
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return corrected
