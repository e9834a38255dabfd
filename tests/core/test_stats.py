"""Intervals and tests against enumeration, scipy and literal shuffling; under a null effect p values are uniform."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from classlens.core import stats as module
from classlens.core.stats import (
    Statistics,
    estimate,
    flip_signs,
    holm,
    shuffle_labels,
    wilcoxon,
    wilcoxon_of_counts,
)
from classlens.errors import ClasslensError

HOW = Statistics(permutations=400, resamples=200)
Array = np.ndarray[Any, np.dtype[Any]]


def drawn(*shape: int, seed: int = 0) -> Array:
    return np.asarray(np.random.default_rng(seed).normal(size=shape))


def slack(p: float, draws: int) -> float:
    """Four standard deviations of a share of so many draws, and the one that is always added."""
    return 4 * math.sqrt(p * (1 - p) / draws) + 2 / draws


# Intervals.


def test_means_leave_out_images_without_a_value() -> None:
    values = drawn(20, 3)
    values[4:9, 1] = np.nan
    values[:, 2] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = estimate(values, HOW)
    np.testing.assert_allclose(found.value[:2], np.nanmean(values[:, :2], axis=0), atol=1e-12)
    assert found.images.tolist() == [20, 15, 0]
    assert np.isnan([found.value[2], found.low[2], found.high[2]]).all()
    assert (found.low[:2] < found.value[:2]).all()
    assert (found.value[:2] < found.high[:2]).all()


def test_no_images() -> None:
    assert np.isnan(estimate(np.empty((0, 2)), HOW).value).all()
    assert estimate(np.empty((4, 0)), HOW).value.shape == (0,)


def test_intervals_cover_what_they_say() -> None:
    """90 % intervals of 400 samples of 60: binomial, so within four standard deviations (6 points), less the known
    undercoverage of percentile intervals for means of 60 (about 1 point)."""
    values = drawn(60, 400)
    found = estimate(values, Statistics(resamples=500, confidence=0.9))
    covered = float(((found.low < 0) & (found.high > 0)).mean())
    assert 0.83 < covered < 0.96
    # Of a normal mean: ±1.645 / √60, of all samples together to a few per cent.
    assert float((found.high - found.low).mean()) == pytest.approx(2 * 1.645 / math.sqrt(60), rel=0.05)


def test_an_interval_is_the_quantiles_of_literal_resamples() -> None:
    values = drawn(7, 1)
    found = estimate(values, Statistics(resamples=50, confidence=0.8, seed=3))
    chosen = np.random.default_rng(3).integers(0, 7, (50, 7))
    means = [sum(values[image, 0] for image in one) / 7 for one in chosen]
    assert found.low[0] == pytest.approx(np.quantile(means, 0.1), abs=1e-12)
    assert found.high[0] == pytest.approx(np.quantile(means, 0.9), abs=1e-12)


def test_columns_share_their_resamples_and_do_not_know_of_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    values = drawn(30, 4)
    together = estimate(values, HOW)
    for column in range(4):
        alone = estimate(values[:, column : column + 1], HOW)
        np.testing.assert_allclose([one[0] for one in alone], [one[column] for one in together], atol=1e-12)
    assert estimate(values, HOW).low.tolist() == together.low.tolist()
    assert estimate(values, Statistics(seed=1, resamples=200)).low.tolist() != together.low.tolist()


def test_constant_values_have_no_width() -> None:
    found = estimate(np.full((9, 1), 0.375), HOW)
    assert [found.value[0], found.low[0], found.high[0]] == [0.375] * 3


def test_weights_pool_tokens() -> None:
    """2 of 4 tokens and 1 of 1: 3 of 5, not the mean of a half and one."""
    found = estimate(np.array([[0.5], [1.0], [np.nan]]), HOW, weights=np.array([[4.0], [1.0], [7.0]]))
    assert found.value[0] == pytest.approx(3 / 5)
    assert found.images[0] == 2


def test_groups_count_once() -> None:
    values = np.array([[1.0], [0.0], [0.0], [0.6], [np.nan]])
    found = estimate(values, HOW, groups=np.array([3, 3, 3, 0, 7]))
    assert found.value[0] == pytest.approx((1 / 3 + 0.6) / 2), "group 7 has no value"
    spread = estimate(drawn(40, 2), HOW, groups=np.arange(40) % 4)
    assert (spread.low < spread.value).all()
    assert (spread.value < spread.high).all()


# Permutations of paired differences.


@pytest.mark.parametrize("alternative", ["greater", "two-sided"])
@pytest.mark.parametrize("count", [1, 4, 9])
def test_flipped_signs_approach_their_enumeration(alternative: Any, count: int) -> None:
    differences = drawn(count, 5, seed=count) + 0.3
    found = flip_signs(differences, Statistics(permutations=4000), alternative)
    sums = np.array([np.array(signs) @ differences for signs in product((-1, 1), repeat=count)])
    observed = differences.sum(axis=0)
    if alternative == "two-sided":
        sums, observed = np.abs(sums), np.abs(observed)
    exact = (sums >= observed - 1e-12).mean(axis=0)
    for p, wanted in zip(found, exact, strict=True):
        assert p == pytest.approx(wanted, abs=slack(wanted, 4000))


def test_ties_count_against_the_effect() -> None:
    assert flip_signs(np.zeros((6, 1)), HOW)[0] == 1
    # Sums of 0.1 differ in their last digits by the order in which they are added.
    assert flip_signs(np.full((2, 1), 0.1), Statistics(permutations=4000))[0] == pytest.approx(
        0.25, abs=slack(0.25, 4000)
    )


def test_differences_that_are_not_there() -> None:
    values = np.array([[np.nan, 1.0], [np.nan, 2.0], [np.nan, np.nan]])
    p = flip_signs(values, Statistics(permutations=4000))
    assert np.isnan(p[0])
    assert p[1] == pytest.approx(0.25, abs=slack(0.25, 4000))


def test_p_is_never_0() -> None:
    assert flip_signs(np.ones((200, 1)), HOW)[0] == 1 / 401
    assert shuffle_labels(np.array([0, 500]), np.array([500, 0]), np.arange(2), HOW) == 1 / 401
    assert 0 < wilcoxon(np.arange(1.0, 20_000)).p < 1e-300
    assert 0 < wilcoxon_of_counts(np.array([-1, 1]), np.array([0, 10**7])).p < 1e-300


# Shuffled labels.


@pytest.mark.parametrize("alternative", ["greater", "two-sided"])
def test_an_urn_is_the_same_as_shuffling(alternative: Any) -> None:
    """All ways to choose 4 of 9 tokens, each as likely as any other."""
    tokens = np.array([0, 0, 1, 1, 3, 3, 3, 6, 6])
    first = tokens[[2, 6, 7, 8]]
    one, other = (np.bincount(chosen, minlength=7) for chosen in (first, tokens[[0, 1, 3, 4, 5]]))
    p = shuffle_labels(one, other, np.arange(7), Statistics(permutations=4000), alternative)
    sums = np.array([tokens[list(chosen)].sum() for chosen in combinations(range(9), 4)], dtype=float)
    observed = float(first.sum())
    if alternative == "two-sided":
        expected = 4 * tokens.mean()
        sums, observed = np.abs(sums - expected), abs(observed - expected)
    exact = float((sums >= observed - 1e-9).mean())
    assert p == pytest.approx(exact, abs=slack(exact, 4000))


@given(st.lists(st.integers(0, 30), min_size=4, max_size=4), st.integers(0, 9))
def test_two_values_are_fishers_exact_test(table: list[int], seed: int) -> None:
    first, second = np.array(table[:2]), np.array(table[2:])
    p = shuffle_labels(first, second, np.arange(2), Statistics(seed=seed, permutations=1000))
    if not first.sum() or not second.sum():
        assert math.isnan(p)
        return
    exact = float(stats.fisher_exact([first[::-1], second[::-1]], alternative="greater").pvalue)
    # Five standard deviations, as hypothesis tries a hundred tables.
    assert p == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / 1000) + 2 / 1000)


def test_a_constant_added_to_all_values_changes_nothing() -> None:
    first, second = np.array([3, 0, 5, 2]), np.array([4, 1, 2, 2])
    p = shuffle_labels(first, second, np.arange(4), HOW)
    assert shuffle_labels(first, second, np.arange(4) + 100, HOW) == p


def test_a_million_tokens_of_a_thousand_ranks() -> None:
    """Ranks of one group lower by one in a thousand on average: ten thousand permutations see it."""
    rng = np.random.default_rng(0)
    ranks = rng.integers(0, 1000, 10**6)
    group = rng.random(10**6) < 0.3
    lower = np.where(group, np.maximum(ranks - 4, 0), ranks)
    one, other = (np.bincount(lower[chosen], minlength=1000) for chosen in (group, ~group))
    assert shuffle_labels(one, other, -np.arange(1000), Statistics()) == 1 / 10_001
    assert shuffle_labels(one, other, np.arange(1000), Statistics()) == 1


def test_singles_are_as_exact_as_doubles() -> None:
    """The identity is a tie of itself, also where sums of float32 would differ in their last digits."""
    values = np.random.default_rng(0).random((6, 300), dtype=np.float32)
    assert flip_signs(values, Statistics(permutations=2000)).min() > 1 / 64 - slack(1 / 64, 2000) * 1.5


def test_large_counts_do_not_overflow() -> None:
    """Two equal groups of 200 million tokens: no difference, whatever is drawn."""
    same = np.full(1000, 200_000)
    assert shuffle_labels(same, same, np.arange(1000), Statistics(permutations=20), "two-sided") == 1


def test_a_large_offset_changes_nothing() -> None:
    first, second = np.array([1, 2, 3, 4]), np.array([4, 3, 2, 1])
    p = [shuffle_labels(first, second, np.arange(4) + offset, HOW, "two-sided") for offset in (0, 10**15)]
    assert p[0] == p[1]


def test_more_tokens_than_can_be_drawn_have_no_p_value() -> None:
    assert math.isnan(shuffle_labels(np.array([10**9, 5]), np.array([7, 7]), np.arange(2), HOW))


# Under a null effect.


@pytest.mark.parametrize("test", ["flip_signs", "shuffle_labels", "wilcoxon", "wilcoxon_of_counts"])
def test_p_values_are_uniform_under_a_null_effect(test: str) -> None:
    rng = np.random.default_rng(5)
    if test == "flip_signs":
        p = flip_signs(rng.normal(size=(40, 400)), Statistics(permutations=999))
    elif test == "wilcoxon":
        p = np.array([wilcoxon(rng.normal(size=60)).p for _ in range(400)])
    elif test == "wilcoxon_of_counts":
        values = np.arange(-500, 501)
        p = np.array(
            [
                wilcoxon_of_counts(values, np.bincount(rng.integers(-500, 501, 300) + 500, minlength=1001)).p
                for _ in range(400)
            ]
        )
    else:
        pairs = [[np.bincount(rng.integers(0, 300, 200), minlength=300) for _ in range(2)] for _ in range(400)]
        p = np.array([shuffle_labels(one, other, np.arange(300), HOW) for one, other in pairs])
    # Kolmogorov and Smirnov: a true null fails this once in a thousand seeds, and the seed is fixed.
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_a_known_effect_is_found_as_often_as_its_power_says() -> None:
    """Differences of mean 0.5 and deviation 1 in 30 images: a one-sided test at 5 % has power 0.85 (normal)."""
    p = flip_signs(drawn(30, 400, seed=2) + 0.5, Statistics(permutations=999))
    power = 1 - stats.norm.cdf(1.645 - 0.5 * math.sqrt(30))
    assert float((p <= 0.05).mean()) == pytest.approx(power, abs=4 * math.sqrt(power * (1 - power) / 400) + 0.01)


# Ranks.


def test_effects_by_hand() -> None:
    assert wilcoxon(np.array([1.0, 2.0, -3.0])).effect == 0
    assert wilcoxon(np.array([1.0, 2.0, 3.0])).effect == 1
    assert wilcoxon(np.array([1.0, 2.0, 3.0])).p == pytest.approx(1 / 8)
    assert wilcoxon_of_counts(np.array([-3, 0, 1, 2]), np.array([1, 5, 1, 1])).effect == 0
    # Ranks 1.5, 1.5, 3: (3 + 1.5 - 1.5) / 6
    assert wilcoxon_of_counts(np.array([-1, 1, 2]), np.array([1, 1, 1])).effect == 0.5
    for nothing in (wilcoxon(np.zeros(4)), wilcoxon_of_counts(np.array([0]), np.array([4]))):
        assert nothing == (1.0, 0.0)
    for empty in (wilcoxon(np.full(3, np.nan)), wilcoxon_of_counts(np.array([1]), np.array([0]))):
        assert all(math.isnan(one) for one in empty)


def test_rounding_breaks_no_ties() -> None:
    """0.1 + 0.2 is not 0.3, but as a difference it is, and 1e-17 is none."""
    exact = np.array([3, -3, 3, -1, 2, 2, 0] * 10, dtype=float)
    rounded = np.array([0.1 + 0.2, -0.3, 0.3, -0.1, 0.2, 0.3 - 0.1, 1e-17] * 10)
    assert wilcoxon(rounded) == pytest.approx(wilcoxon(exact))


@given(st.lists(st.integers(-6, 6), min_size=1, max_size=200))
def test_counts_are_as_good_as_their_pairs(differences: list[int]) -> None:
    values = np.arange(-6, 7)
    found = wilcoxon_of_counts(values, np.array([differences.count(int(value)) for value in values]))
    apart = [one for one in differences if one]
    if not apart:
        assert found == (1.0, 0.0)
        return
    wanted = stats.wilcoxon(apart, alternative="greater", method="asymptotic")
    assert found.p == pytest.approx(wanted.pvalue, rel=1e-9)
    largest = len(apart) * (len(apart) + 1) / 2
    assert found.effect == pytest.approx(2 * wanted.statistic / largest - 1, abs=1e-12)
    assert found.effect == pytest.approx(wilcoxon(np.array(differences, dtype=float)).effect, abs=1e-12)


# Many tests.


def test_holm_by_hand() -> None:
    """0.01 · 3, 0.03 · 2, and the third no less than the second."""
    assert holm(np.array([0.04, 0.01, np.nan, 0.03])) == pytest.approx([0.06, 0.03, np.nan, 0.06], nan_ok=True)
    assert holm(np.array([0.6, 0.7])).tolist() == [1, 1]
    assert holm(np.array([])).size == 0


@given(st.lists(st.floats(1e-12, 1), min_size=1, max_size=20))
def test_holm_rejects_step_by_step(p: list[float]) -> None:
    found = holm(np.array(p))
    for level in (0.01, 0.05, 0.5):
        rejected, steps = set(), sorted(range(len(p)), key=lambda one: p[one])
        for step, one in enumerate(steps):
            if p[one] * (len(p) - step) > level:
                break
            rejected.add(p[one])
        assert {p[one] for one in range(len(p)) if found[one] <= level} == rejected
    assert (found >= np.array(p)).all()
    assert (found <= 1).all()


@pytest.mark.parametrize("scratch", [1, 50, 2**22])
def test_results_do_not_depend_on_how_much_is_drawn_at_once(scratch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SCRATCH", scratch)
    assert estimate(drawn(9, 2), HOW).value == pytest.approx(drawn(9, 2).mean(axis=0))
    assert flip_signs(np.ones((9, 1)), HOW)[0] < 0.02
    assert shuffle_labels(np.array([0, 9]), np.array([9, 0]), np.arange(2), HOW) < 0.02


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"permutations": 0}, "permutations 0 cannot be used: give a whole number of at least 1"),
        ({"resamples": 0}, "resamples 0 cannot be used"),
        ({"confidence": 0.0}, "confidence 0.0 cannot be used: give a number between 0 and 1"),
        ({"confidence": 1.0}, "confidence 1.0 cannot be used"),
        ({"seed": -1}, "seed -1 cannot be used"),
    ],
)
def test_settings_out_of_range(change: dict[str, Any], message: str) -> None:
    Statistics(permutations=1, resamples=1, confidence=0.01, seed=0)
    with pytest.raises(ClasslensError, match=message):
        replace(Statistics(), **change)
