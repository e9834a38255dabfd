"""Intervals and tests for measurements of images: seeded, vectorized, and never a p value of 0.

Tokens of an image are not independent, so intervals and tests are over images. The paper's tests over tokens are here
too; they take counts of values in place of the tokens, which is all that such a test needs of millions of them.
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

from classlens.errors import ClasslensError

Alternative = Literal["greater", "two-sided"]

# Numbers drawn at once: 32 MiB of float64.
_SCRATCH = 2**22
_LEAST = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Statistics:
    """How much is drawn, from which seed, and how wide intervals are."""

    seed: int = 0
    permutations: int = 10_000
    resamples: int = 2_000
    confidence: float = 0.95


def check_statistics(how: Statistics) -> None:
    """Raises ClasslensError for numbers that nothing can be drawn with."""
    for name, value in (("permutations", how.permutations), ("resamples", how.resamples)):
        if value < 1:
            raise ClasslensError(f"{name} {value} is too few: give 1 or more")
    if not 0 < how.confidence < 1:
        raise ClasslensError(f"confidence {how.confidence} is no share: give a number between 0 and 1, such as 0.95")
    if how.seed < 0:
        raise ClasslensError(f"seed {how.seed} is negative: give 0 or more")


class Estimate(NamedTuple):
    """A mean over images with its interval, and how many images had a value; NaN where none had."""

    value: Float[ndarray, " columns"]
    low: Float[ndarray, " columns"]
    high: Float[ndarray, " columns"]
    images: Int[ndarray, " columns"]


class Test(NamedTuple):
    """``p`` in (0, 1]; ``effect`` in [-1, 1], the rank-biserial correlation of a signed-rank test."""

    p: float
    effect: float


def estimate(
    values: Float[ndarray, "images columns"],
    how: Statistics,
    *,
    weights: Float[ndarray, "images columns"] | None = None,
    groups: Int[ndarray, " images"] | None = None,
) -> Estimate:
    """Means over images with percentile bootstrap intervals; a NaN is an image without a value.

        estimate(rates, Statistics(seed=1)).low

    ``weights`` makes a pooled mean ``Σ w·v / Σ w``: tokens counted over all images alike. ``groups`` (classes) makes
    the mean within each group and then over groups; a group of which no image is drawn is left out of that resample.
    All columns share their resamples.
    """
    there = ~np.isnan(values)
    weight = there.astype(np.float64) if weights is None else np.where(there, weights, 0.0)
    total = np.where(there, values, 0.0) * weight
    parts = [slice(None)] if groups is None else _members(groups)

    def means(drawn: Float[ndarray, "draws images"]) -> Float[ndarray, "draws columns"]:
        found = np.zeros((len(drawn), values.shape[1]))
        counted = np.zeros_like(found)
        for part in parts:
            below = drawn[:, part] @ weight[part]
            mean = np.divide(drawn[:, part] @ total[part], below, out=np.zeros_like(below), where=below > 0)
            found += mean
            counted += below > 0
        return np.divide(found, counted, out=np.full_like(found, np.nan), where=counted > 0)

    return Estimate(*bootstrap(means, len(values), how), there.sum(axis=0))


def bootstrap(
    statistic: Callable[[Float[ndarray, "draws images"]], Float[ndarray, "draws columns"]],
    images: int,
    how: Statistics,
) -> tuple[Float[ndarray, " columns"], Float[ndarray, " columns"], Float[ndarray, " columns"]]:
    """Statistics of the images with percentile bootstrap intervals: their values, lower and upper ends.

        bootstrap(lambda drawn: (drawn @ hits) / (drawn @ trials), len(hits), Statistics())

    ``statistic`` is given how often each image is drawn; NaN where it is not defined.
    """
    value = statistic(np.ones((1, images)))[0]
    if not images or not len(value):
        return value, value, value
    drawn = np.concatenate([statistic(each) for each in _resamples(images, how)])
    edges = (1 - how.confidence) / 2
    # A column without any value stays NaN, and numpy need not warn of it.
    known = ~np.isnan(value)
    low, high = np.full_like(value, np.nan), np.full_like(value, np.nan)
    if known.any():
        low[known], high[known] = np.nanquantile(drawn[:, known], [edges, 1 - edges], axis=0)
    return value, low, high


def _members(groups: Int[ndarray, " images"]) -> list[Any]:
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)


def _resamples(images: int, how: Statistics) -> Iterator[Float[ndarray, "draws images"]]:
    """How often each image is drawn, in each resample."""
    rng = np.random.default_rng(how.seed)
    step = max(1, _SCRATCH // images)
    for start in range(0, how.resamples, step):
        draws = min(step, how.resamples - start)
        chosen = rng.integers(0, images, (draws, images)) + np.arange(draws)[:, None] * images
        yield np.bincount(chosen.ravel(), minlength=draws * images).reshape(draws, images).astype(np.float64)


def flip_signs(
    differences: Float[ndarray, "images columns"], how: Statistics, alternative: Alternative = "greater"
) -> Float[ndarray, " columns"]:
    """Permutation test of paired differences over images: under the null each is as likely with the other sign.

        p = flip_signs(rate_of_class_tokens - rate_of_context_tokens, Statistics())

    Returns ``(1 + hits) / (1 + permutations)`` for each column; NaN where no image has a difference.
    """
    there = ~np.isnan(differences)
    values = np.where(there, differences, 0.0).astype(np.float64)
    observed = values.sum(axis=0)
    # Sums that are equal but for rounding are ties, and count against the effect.
    slack = 1e-12 * np.abs(values).sum(axis=0)
    hits = np.zeros(values.shape[1], dtype=np.int64)
    rng = np.random.default_rng(how.seed)
    step = max(1, _SCRATCH // max(1, len(values)))
    for start in range(0, how.permutations, step):
        signs = rng.integers(0, 2, (min(step, how.permutations - start), len(values)), dtype=np.int8)
        sums = (2.0 * signs - 1.0) @ values
        if alternative == "greater":
            hits += (sums >= observed - slack).sum(axis=0)
        else:
            hits += (np.abs(sums) >= np.abs(observed) - slack).sum(axis=0)
    return np.where(there.any(axis=0), (1 + hits) / (1 + how.permutations), np.nan)


def shuffle_labels(
    first: Int[ndarray, " values"],
    second: Int[ndarray, " values"],
    values: Int[ndarray, " values"],
    how: Statistics,
    alternative: Alternative = "greater",
) -> float:
    """Permutation test of a difference of means between two groups, from how often each value occurs in them.

        shuffle_labels(counts_of_class_tokens, counts_of_context_tokens, np.arange(num_classes), Statistics())

    Shuffling labels over tokens and adding up is drawing from an urn: how many of each value fall to the first group is
    multivariate hypergeometric. So a permutation costs as much for millions of tokens as for a few, and their
    distribution is that of the shuffles themselves. Returns ``(1 + hits) / (1 + permutations)``; NaN when a group is
    empty, or from 10⁹ tokens on, for which numpy draws no such numbers.
    """
    both = first + second
    kept = both > 0
    first, both, values = first[kept], both[kept], values[kept].astype(np.int64)
    size, total = int(first.sum()), int(both.sum())
    if size == 0 or size == total or total >= 10**9:
        return math.nan
    # The mean is a rising function of the sum that falls to the first group. Integers from 0, so ties are exact.
    values = values - values.min()
    observed, expected = int(first @ values), Fraction(size * int(both @ values), total)
    apart = abs(observed - expected)
    rng = np.random.default_rng(how.seed)
    hits, step = 0, max(1, _SCRATCH // len(both))
    for start in range(0, how.permutations, step):
        draws = min(step, how.permutations - start)
        sums = rng.multivariate_hypergeometric(both, size, size=draws, method="marginals") @ values
        if alternative == "greater":
            hits += int((sums >= observed).sum())
        else:
            hits += int(((sums >= math.ceil(expected + apart)) | (sums <= math.floor(expected - apart))).sum())
    return (1 + hits) / (1 + how.permutations)


def wilcoxon(differences: Float[ndarray, " pairs"]) -> Test:
    """One-sided Wilcoxon signed-rank test that paired differences tend above 0, and its effect size.

        wilcoxon(identifiability - identifiability_of_twin).effect

    Exact for few pairs, else the normal approximation (scipy's); pairs without a difference are left out, as are NaN.
    The effect is the matched-pairs rank-biserial correlation ``(W⁺ - W⁻) / (W⁺ + W⁻)`` (Kerby, 2014).
    """
    from scipy import stats

    differences = differences[~np.isnan(differences)]
    # What differs by rounding alone is a tie, or no difference.
    scale = float(np.abs(differences).max(initial=0)) or 1.0
    differences = np.round(differences / scale, 12)
    apart = differences[differences != 0]
    if not len(apart):
        return Test(1.0 if len(differences) else math.nan, 0.0 if len(differences) else math.nan)
    found = stats.wilcoxon(apart, alternative="greater")
    largest = len(apart) * (len(apart) + 1) / 2
    return Test(max(float(found.pvalue), _LEAST), 2 * float(found.statistic) / largest - 1)


def wilcoxon_of_counts(values: Int[ndarray, " values"], counts: Int[ndarray, " values"]) -> Test:
    """``wilcoxon`` from how often each difference occurs, by the normal approximation with its correction for ties.

    wilcoxon_of_counts(np.arange(-9, 10), np.bincount(rank_of_twin - rank + 9, minlength=19))
    """
    kept = (counts > 0) & (values != 0)
    if not kept.any():
        there = counts.sum() > 0
        return Test(1.0 if there else math.nan, 0.0 if there else math.nan)
    size, where = np.unique(np.abs(values[kept]), return_inverse=True)
    above = np.bincount(where, np.where(values[kept] > 0, counts[kept], 0), minlength=len(size))
    tied = np.bincount(where, counts[kept], minlength=len(size))
    before = np.cumsum(tied) - tied
    rank = before + (tied + 1) / 2  # the mean rank of those that tie
    pairs = float(tied.sum())
    plus, largest = float(rank @ above), pairs * (pairs + 1) / 2
    variance = pairs * (pairs + 1) * (2 * pairs + 1) / 24 - float((tied**3 - tied).sum()) / 48
    z = (plus - largest / 2) / math.sqrt(variance)
    return Test(max(0.5 * math.erfc(z / math.sqrt(2)), _LEAST), 2 * plus / largest - 1)


def holm(p: Float[ndarray, " tests"]) -> Float[ndarray, " tests"]:
    """Holm's step-down correction: each p value as if its family had been one test; NaN stay and count for nothing."""
    found = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known])]
    found[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return found
