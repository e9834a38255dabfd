"""Measures of trajectories: sequences worked by hand, then literal twins in float64 on drawn ones."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations, pairwise, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classlens.core import trajectories as measures
from classlens.core.stats import Statistics
from classlens.core.trajectories import Counting

Numbers = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Classes = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


class Drawn:
    """Images with logits of every class at each depth; few distinct values in half of the cases."""

    def __init__(self, logits: Numbers) -> None:
        self.logits = logits
        self.images, self.depths, self.classes = logits.shape
        self.k = min(3, self.classes)
        order = np.argsort(-logits, axis=-1, kind="stable")
        self.top: Classes = order[..., : self.k]
        self.top_logit: Numbers = np.take_along_axis(logits, self.top, axis=-1)
        self.top1 = self.top[..., 0]


@st.composite
def drawn(draw: st.DrawFn, least_depths: int = 1) -> Drawn:
    shape = draw(st.integers(1, 3)), draw(st.integers(least_depths, 6)), draw(st.integers(2, 5))
    value = draw(st.sampled_from([st.integers(0, 2).map(float), st.floats(-9, 9)]))
    size = math.prod(shape)
    return Drawn(np.array(draw(st.lists(value, min_size=size, max_size=size))).reshape(shape))


def _close(found: Numbers, expected: list[float]) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@given(drawn(), st.data())
def test_margin_is_to_the_largest_of_the_others(given: Drawn, data: st.DataObject) -> None:
    target = np.array([data.draw(st.integers(0, given.classes - 1)) for _ in range(given.images)])
    logit = np.take_along_axis(given.logits, target[:, None, None], axis=-1)[..., 0]
    found = measures.margin(given.top, given.top_logit, target, logit)
    for image, row in enumerate(given.logits.tolist()):
        for depth, logits in enumerate(row):
            others = [value for category, value in enumerate(logits) if category != target[image]]
            assert found[image, depth] == logits[target[image]] - max(others)


@given(drawn())
def test_commitment_and_saturation_by_loops(given: Drawn) -> None:
    committed = measures.commitment(given.top1)
    exact, published = (measures.saturation(given.top, counting) for counting in measures.COUNTINGS)
    last = given.depths - 1
    for image in range(given.images):
        places = given.top[image].tolist()
        assert committed[image] == min(
            start
            for start in range(given.depths)
            if all(places[depth][0] == places[last][0] for depth in range(start, given.depths))
        )
        for place in range(given.k):
            other = [depth for depth in range(given.depths) if places[depth][place] != places[last][place]]
            assert exact[image, place] == (1 + max(other) if other else 0)
            assert published[image, place] == (1 + max(other) if other else given.depths)
    np.testing.assert_array_equal(exact[:, 0], committed)


@pytest.mark.parametrize(
    ("top1", "committed", "changes", "number", "mode"),
    [
        ([5, 5, 5, 5], 0, 0.0, 1, 1.0),  # never changes
        ([1, 2, 1, 2], 3, 1.0, 2, 0.5),  # always changes
        ([1, 2, 3, 4], 3, 1.0, 4, 0.25),
        ([7, 7, 2, 7], 3, 2 / 3, 2, 0.75),  # comes back
        ([0, 3, 3, 3], 1, 1 / 3, 2, 0.75),
    ],
)
def test_sequences_by_hand(top1: list[int], committed: int, changes: float, number: int, mode: float) -> None:
    sequence = np.array([top1])
    assert measures.commitment(sequence).tolist() == [committed]
    assert measures.change_share(sequence)[0] == pytest.approx(changes)
    spread = measures.spread(sequence)
    assert (spread.number[0], spread.mode_share[0]) == (number, mode)
    shares = [count / 4 for count in Counter(top1).values()]
    assert spread.entropy[0] == pytest.approx(-sum(share * math.log(share) for share in shares))


def test_one_depth_has_no_changes_and_is_committed_to() -> None:
    top, logit = np.array([[[1, 0]]]), np.array([[[2.0, 1.0]]])
    assert measures.saturation(top).tolist() == [[0, 0]]
    assert measures.saturation(top, "published").tolist() == [[1, 1]]
    found = measures.two_class_measures(np.array([[-1.0]]))
    assert [float(value[0]) for value in found] == [0.0, 1.0, 0.0, 1.0]
    assert measures.classes_on_top(top).tolist() == [2]
    for nothing in (
        measures.change_share(top[..., 0]),
        measures.top_overlap(top, logit),
        measures.biggest_change(logit[..., 0]),
    ):
        assert np.isnan(nothing).all()


@pytest.mark.parametrize(
    ("saturated", "tau"),
    [
        ([0, 1, 2, 3, 4], 1.0),
        ([4, 3, 2, 1, 0], -1.0),
        ([2, 2, 2, 2, 2], -1.0),  # a tie is no order
        ([1, 4, 4, 4, 0], -0.4),  # 3 of 10 pairs: 1 before each 4
        ([2, 3, 4, 5, 1], 0.2),  # 6 of 10
        ([2, 4, 3, 5, 1], 0.0),  # 5 of 10
    ],
)
def test_order_by_hand(saturated: list[int], tau: float) -> None:
    assert measures.order_of_saturation(np.array([saturated]))[0] == pytest.approx(tau, abs=1e-15)


def test_one_place_has_no_order() -> None:
    assert np.isnan(measures.order_of_saturation(np.array([[3]]))).all()
    assert math.isnan(measures.shuffle_places(np.array([[3]]), Statistics()))
    assert math.isnan(measures.shuffle_places(np.zeros((0, 5), dtype=np.int64), Statistics()))


@pytest.mark.parametrize(("depths", "largest"), [(12, 10), (24, 20), (1, 0), (20, 17)])
def test_images_that_saturate_late_are_left_out(depths: int, largest: int) -> None:
    saturated = np.arange(depths)[:, None]
    assert measures.kept_for_order(saturated, depths).tolist() == [depth <= largest for depth in range(depths)]


def test_the_permutation_test_counts_all_permutations_of_few_images() -> None:
    """Against every one of the 24² pairs of permutations of two images, one of them with a tie."""
    saturated = np.array([[0, 2, 1, 3], [1, 1, 0, 5]])

    def agreeing(rows: list[tuple[int, ...]]) -> int:
        return sum(row[i] < row[j] for row in rows for i, j in combinations(range(4), 2))

    observed = agreeing([tuple(row) for row in saturated.tolist()])
    every = [agreeing([a, b]) for a in permutations(saturated[0].tolist()) for b in permutations(saturated[1].tolist())]
    exact = sum(count >= observed for count in every) / len(every)
    draws = 20_000
    found = measures.shuffle_places(saturated, Statistics(permutations=draws))
    assert 0.1 < exact < 0.9
    # Five standard errors of a share of independent draws.
    assert found == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / draws))


def test_the_order_that_shuffling_expects_is_the_mean_of_all_permutations() -> None:
    saturated = np.array([[0, 2, 1, 3], [1, 1, 0, 5], [2, 2, 2, 2]])
    every = [measures.order_of_saturation(np.array(list(permutations(row)))).mean() for row in saturated.tolist()]
    assert measures.shuffled_order(saturated) == pytest.approx(sum(every) / 3, abs=1e-15)


def test_p_is_uniform_where_places_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    p = [
        measures.shuffle_places(rng.integers(0, 6, (40, 5)), Statistics(seed=seed, permutations=199))
        for seed in range(400)
    ]
    # Kolmogorov and Smirnov: 1.63 / sqrt(n) is exceeded by 1 % of uniform samples; the seed is fixed.
    distance = max(abs((np.sort(p) - np.arange(1, 401) / 400).min()), abs((np.sort(p) - np.arange(400) / 400).max()))
    assert distance < 1.63 / math.sqrt(400)


def test_order_is_found_and_disorder_is_not() -> None:
    rng = np.random.default_rng(1)
    ordered = np.sort(rng.integers(0, 12, (50, 5)), axis=1)
    assert measures.shuffle_places(ordered, Statistics(permutations=999)) == 0.001
    assert measures.shuffle_places(ordered[:, ::-1], Statistics(permutations=999)) == 1.0


def test_areas_and_changes_by_hand() -> None:
    rank = np.array([[3, 1, 0]])
    np.testing.assert_allclose(measures.reciprocal_rank(rank, 4), [[0.0, 0.25, 0.75]])
    values = np.array([[0.0, 2.0, 1.0, 3.0], [3.0, 3.0, 3.0, 3.0], [1.0, 0.0, -5.0, -6.0]])
    assert measures.biggest_change(values).tolist() == [0, 0, 0]
    assert measures.biggest_change(-values).tolist() == [1, 0, 1]


@given(drawn(), st.data())
def test_two_classes_by_loops(given: Drawn, data: st.DataObject) -> None:
    first, second = data.draw(st.permutations(range(given.classes)))[:2]
    difference = given.logits[..., first] - given.logits[..., second]
    found = measures.two_class_measures(difference)
    for image, d in enumerate(difference.tolist()):
        size = len(d)
        _close(found.area_for[image : image + 1], [math.fsum(value for value in d if value > 0)])
        _close(found.area_against[image : image + 1], [math.fsum(-value for value in d if value < 0)])
        assert found.change_of_mind[image] == min(0, d[-1]) - min(d)
        never = [start for start in range(size) if all(value >= 0 for value in d[start:])]
        assert found.time_to_decision[image] == ((never[0] if never else size - 1) + 1) / size


@given(drawn(least_depths=2))
def test_stability_by_loops(given: Drawn) -> None:
    changes, overlap = measures.change_share(given.top1), measures.top_overlap(given.top, given.top_logit)
    union, spread = measures.classes_on_top(given.top), measures.spread(given.top1)
    for image in range(given.images):
        top, logit = given.top[image].tolist(), given.top_logit[image].tolist()
        weights = []
        for classes, logits in zip(top, logit, strict=True):
            total = math.fsum(math.exp(value) for value in logits)
            weights.append({one: math.exp(value) / total for one, value in zip(classes, logits, strict=True)})
        both = [sum(min(a[one], b[one]) for one in a.keys() & b.keys()) for a, b in pairwise(weights)]
        _close(overlap[image : image + 1], [sum(shared / (2 - shared) for shared in both) / len(both)])
        first = [classes[0] for classes in top]
        assert changes[image] == sum(a != b for a, b in pairwise(first)) / (len(first) - 1)
        assert union[image] == len({one for classes in top for one in classes})
        counts = Counter(first)
        assert spread.number[image] == len(counts)
        assert spread.mode_share[image] == max(counts.values()) / len(first)
        shares = [count / len(first) for count in counts.values()]
        _close(spread.entropy[image : image + 1], [-sum(share * math.log(share) for share in shares)])


def test_top_classes_without_one_in_common_do_not_overlap() -> None:
    top = np.array([[[0, 1], [2, 3]], [[0, 1], [1, 0]]])
    logit = np.array([[[0.0, 0.0], [0.0, 0.0]], [[math.log(3), 0.0], [math.log(3), 0.0]]])
    # Second image: weights 3/4 and 1/4 change places, so I = 1/2 and the index is 1/3.
    np.testing.assert_allclose(measures.top_overlap(top, logit), [0, 1 / 3])


def test_countings_are_named() -> None:
    names: tuple[Counting, ...] = measures.COUNTINGS
    assert names == ("exact", "published")
