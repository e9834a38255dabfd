"""Intervals and tests against all resamples, all signs and all labelings, on cases with ties, gaps and odd seeds."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from classlens.core import stats as module
from classlens.core.stats import Statistics, estimate, flip_signs, holm, shuffle_labels, wilcoxon, wilcoxon_of_counts

Array = np.ndarray[Any, np.dtype[Any]]
ALTERNATIVES: Any = ("greater", "two-sided")


def agrees(p: float, exact: float, permutations: int) -> bool:
    """The hits behind ``p`` are binomial draws of the exact p; a right p fails this once in a million."""
    hits = p * (1 + permutations) - 1
    assert hits == pytest.approx(round(hits), abs=1e-6)
    return bool(stats.binomtest(round(hits), permutations, exact).pvalue > 1e-6)


def literal_mean(chosen: tuple[int, ...], values: list[float], weights: list[float], groups: list[int]) -> float:
    means = []
    for group in set(groups):
        own = [image for image in chosen if groups[image] == group and not math.isnan(values[image])]
        if sum(weights[image] for image in own) > 0:
            means.append(sum(weights[i] * values[i] for i in own) / sum(weights[i] for i in own))
    return sum(means) / len(means) if means else math.nan


@pytest.mark.parametrize("scratch", [5, 2**22])
@pytest.mark.parametrize("weights", [[1, 1, 1, 1, 1], [5, 1, 2, 9, 1]])
@pytest.mark.parametrize("groups", [[0, 0, 0, 0, 0], [7, 7, 2, 7, 2], [4, 3, 3, 3, 1]])
@pytest.mark.parametrize("values", [[0.9, 0.1, 0.35, -0.6, 0.2], [0.9, math.nan, 0.3, -0.6, math.nan]])
def test_intervals_are_quantiles_of_all_resamples(
    values: list[float], groups: list[int], weights: list[float], scratch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All 5⁵ resamples are as likely as each other; an end of an interval is a quantile of their means."""
    monkeypatch.setattr(module, "_SCRATCH", scratch)
    columns = [np.array(one, dtype=float)[:, None] for one in (values, weights)]
    how = Statistics(resamples=4000, confidence=0.7, seed=2)
    found = estimate(columns[0], how, weights=columns[1], groups=np.array(groups))
    assert found.value[0] == pytest.approx(literal_mean(tuple(range(5)), values, weights, groups))
    means = np.array([literal_mean(chosen, values, weights, groups) for chosen in product(range(5), repeat=5)])
    means = means[~np.isnan(means)]
    for end, level in ((found.low[0], 0.15), (found.high[0], 0.85)):
        # A share of 4000 draws, five deviations; means that differ by rounding are one.
        slack = 5 * math.sqrt(0.15 * 0.85 / 4000)
        assert (means < end - 1e-9).mean() <= level + slack
        assert (means <= end + 1e-9).mean() >= level - slack


def test_coverage_and_width_of_normal_means() -> None:
    """A percentile interval is ±1.96 deviations of the plain kind, so covers as Student's t says it does."""
    rng, covered, images = np.random.default_rng(1), 0, 100
    for seed in range(20):  # each 50 data sets with resamples of their own
        found = estimate(rng.normal(3, 2, (images, 50)), Statistics(seed=seed, resamples=1000))
        covered += int(((found.low < 3) & (found.high > 3)).sum())
    expected = 1 - 2 * stats.t.sf(1.96 * math.sqrt((images - 1) / images), images - 1)
    low, high = stats.binom.interval(0.9999, 1000, expected)
    assert low <= covered <= high
    values = rng.normal(size=(400, 1))
    found = estimate(values, Statistics(resamples=10_000))
    # Either end is a quantile of 10 000 draws, known to 0.027 deviations: the width to 1 %, here four times that.
    assert found.high[0] - found.low[0] == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.04)


def test_the_order_of_columns_does_not_matter() -> None:
    values, order = np.random.default_rng(0).normal(size=(30, 5)), [3, 0, 4, 1, 2]
    for one, other in zip(estimate(values, Statistics()), estimate(values[:, order], Statistics()), strict=True):
        np.testing.assert_allclose(one[order], other, rtol=1e-12)  # sums may round otherwise
    np.testing.assert_array_equal(flip_signs(values, Statistics())[order], flip_signs(values[:, order], Statistics()))


@pytest.mark.parametrize("alternative", ALTERNATIVES)
@pytest.mark.parametrize("scratch", [30, 2**22])
@settings(max_examples=40)
@given(tenths=st.lists(st.none() | st.integers(-4, 6), min_size=1, max_size=9), seed=st.integers(0, 99))
def test_signs_with_ties_and_gaps(alternative: Any, scratch: int, tenths: list[int | None], seed: int) -> None:
    """Tenths tie in sums though floating point has them differ; enumerated in whole numbers."""
    column = np.array([[math.nan if one is None else one / 10] for one in tenths])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SCRATCH", scratch)
        p = float(flip_signs(column, Statistics(seed=seed, permutations=500), alternative)[0])
    own = [one for one in tenths if one is not None]
    if not own:
        assert math.isnan(p)
        return
    sums = [sum(s * v for s, v in zip(signs, own, strict=True)) for signs in product((-1, 1), repeat=len(own))]
    side = abs if alternative == "two-sided" else int
    assert agrees(p, sum(side(one) >= side(sum(own)) for one in sums) / len(sums), 500)


@pytest.mark.parametrize("alternative", ALTERNATIVES)
@pytest.mark.parametrize("scratch", [30, 2**22])
@settings(max_examples=40)
@given(
    first=st.lists(st.sampled_from([0, 1, 2, 40]), min_size=1, max_size=5),
    second=st.lists(st.sampled_from([0, 1, 2, 40]), min_size=1, max_size=5),
    offset=st.sampled_from([0, -7, 10**9]),
    seed=st.integers(0, 99),
)
def test_labels_of_few_tokens(
    alternative: Any, scratch: int, first: list[int], second: list[int], offset: int, seed: int
) -> None:
    """Every way to hand out the labels, with means as fractions; values that nobody has are of no account."""
    values = np.array([0, 1, 2, 3, 40])
    one, other = (np.array([tokens.count(int(value)) for value in values]) for tokens in (first, second))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SCRATCH", scratch)
        how = Statistics(seed=seed, permutations=500)
        p = shuffle_labels(one, other, values + offset, how, alternative)
    tokens, size = first + second, len(first)

    def apart(chosen: tuple[int, ...]) -> Fraction:
        inside = sum(tokens[token] for token in chosen)
        found = Fraction(inside, size) - Fraction(sum(tokens) - inside, len(second))
        return abs(found) if alternative == "two-sided" else found

    all_of_them = [apart(chosen) for chosen in combinations(range(len(tokens)), size)]
    exact = sum(each >= apart(tuple(range(size))) for each in all_of_them) / len(all_of_them)
    assert agrees(p, exact, 500)


def test_labels_of_many_tokens_against_shuffles() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.integers(0, 12, 60), rng.integers(0, 11, 90)
    counts = [np.bincount(tokens, minlength=12) for tokens in (first, second)]
    tokens = np.concatenate([first, second])
    sums = np.array([rng.permutation(tokens)[:60].sum() for _ in range(10_000)])
    for alternative, p in (("greater", (sums >= first.sum()).mean()), ("two-sided", None)):
        if p is None:
            p = (abs(sums - 60 * tokens.mean()) >= abs(first.sum() - 60 * tokens.mean()) - 1e-9).mean()
        found = shuffle_labels(counts[0], counts[1], np.arange(12), Statistics(), alternative)  # type: ignore[arg-type]
        assert 0.01 < p < 0.99
        # Both shares come of 10 000 draws: five deviations of their difference.
        assert found == pytest.approx(p, abs=5 * math.sqrt(2 * p * (1 - p) / 10_000))


def test_seeds() -> None:
    """The same seed, the same p; of twenty seeds, many p, as many as chance has it."""
    values, counts = np.random.default_rng(0).normal(0.2, 1, (15, 1)), np.array([[5, 6, 7], [7, 6, 6]])
    for test in (
        lambda how: float(flip_signs(values, how)[0]),
        lambda how: shuffle_labels(counts[0], counts[1], np.arange(3), how),
        lambda how: float(estimate(values, how).low[0]),
    ):
        found = [test(Statistics(seed=seed)) for seed in range(20)]
        assert found == [test(Statistics(seed=seed)) for seed in range(20)]
        assert len(set(found)) > 10


@pytest.mark.parametrize("seed", range(12))
def test_wilcoxon_of_few_pairs_is_exact(seed: int) -> None:
    """Without ties all signs of the ranks are enumerated; zeros and NaN are left out."""
    rng = np.random.default_rng(seed)
    pairs = rng.permutation(np.arange(1, 12)) * rng.choice([-1, 1], 11)
    found = wilcoxon(np.concatenate([pairs, [0, math.nan]]).astype(float))
    plus = sum(int(one) for one in pairs if one > 0)
    ways = [sum(rank for rank, on in enumerate(chosen, 1) if on) for chosen in product((0, 1), repeat=11)]
    assert found.p == pytest.approx(sum(each >= plus for each in ways) / len(ways))
    assert found.effect == pytest.approx((2 * plus - 66) / 66)


def test_wilcoxon_of_many_pairs_has_no_correction_of_continuity() -> None:
    pairs = np.random.default_rng(4).normal(0.1, 1, 300)
    wanted = stats.wilcoxon(pairs, alternative="greater", method="approx", correction=False, zero_method="wilcox")
    assert wilcoxon(pairs).p == pytest.approx(float(wanted.pvalue), rel=1e-9)
    assert 0 < wilcoxon(np.arange(1.0, 100_001)).p < 1e-300


def test_counts_too_large_to_cube() -> None:
    """Python's whole numbers, for ten billion pairs."""
    above, below = 5 * 10**9 + 10**5, 5 * 10**9 - 10**5
    pairs = above + below
    variance = Fraction(pairs * (pairs + 1) * (2 * pairs + 1), 24) - Fraction(pairs**3 - pairs, 48)
    z = float(above * Fraction(pairs + 1, 2) - Fraction(pairs * (pairs + 1), 4)) / math.sqrt(variance)
    found = wilcoxon_of_counts(np.array([-1, 1]), np.array([below, above]))
    assert found.p == pytest.approx(stats.norm.sf(z), rel=1e-4)
    assert found.effect == pytest.approx((above - below) / pairs, rel=1e-6)


@given(st.lists(st.just(math.nan) | st.floats(0, 1), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_holm_does_not_know_the_order(p: list[float], random: Any) -> None:
    raw, order = np.array(p), list(range(len(p)))
    random.shuffle(order)
    found = holm(raw)
    np.testing.assert_array_equal(holm(raw[order]), found[order])
    np.testing.assert_array_equal(np.isnan(found), np.isnan(raw))
    np.testing.assert_array_equal(found[~np.isnan(raw)], holm(raw[~np.isnan(raw)]))
    known = np.argsort(raw)[: int((~np.isnan(raw)).sum())]
    assert (np.diff(found[known]) >= 0).all()
