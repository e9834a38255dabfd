"""Measures of decision trajectories: how the class scores of an image change over depth.

Arrays go by image and depth, the last depth being the model's own decision. A depth may be any state in order, such as
the outputs of all blocks. Classes that tie stand in the order of their index, as everywhere.
"""

from __future__ import annotations

from itertools import combinations, permutations
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from classlens.core.stats import Statistics

Counting = Literal["exact", "published"]
COUNTINGS: tuple[Counting, ...] = ("exact", "published")


def margin(
    top: Int[ndarray, "image depth place"],
    top_logit: Float[ndarray, "image depth place"],
    target: Int[ndarray, " image"],
    logit: Float[ndarray, "image depth"],
) -> Float[ndarray, "image depth"]:
    """Logit of the class of interest minus the largest of the others; needs the two classes on top.

    Examples:
        >>> margin(np.array([[[3, 1]]]), np.array([[[5.0, 2.0]]]), np.array([3]), np.array([[5.0]]))
        array([[3.]])
    """
    rival = np.where(top[..., 0] == target[:, None], top_logit[..., 1], top_logit[..., 0])
    return np.asarray(logit - rival)


def commitment(top1: Int[ndarray, "image depth"]) -> Int[ndarray, " image"]:
    """The first depth from which on the top class stays the final one.

    Examples:
        >>> commitment(np.array([[7, 2, 7, 7], [7, 7, 7, 7]]))
        array([2, 0])
    """
    return saturation(top1[..., None])[:, 0]


def saturation(top: Int[ndarray, "image depth place"], counting: Counting = "exact") -> Int[ndarray, "image place"]:
    """The first depth from which on the class at each place stays that of the last depth.

    ``1 + max{ℓ : top[ℓ] ≠ top[L-1]}``, and 0 where they never differ; the published code gives L there. Source:
    Lioubashevski et al., *Looking Beyond the Top-1: Transformers Determine Top Tokens in Order*, 2024.

    Examples:
        >>> top = np.array([[[0, 1], [0, 2], [0, 1]]])
        >>> saturation(top), saturation(top, "published")
        (array([[0, 2]]), array([[3, 2]]))
    """
    depths = top.shape[1]
    differs = top != top[:, -1:]
    last = depths - differs[:, ::-1].argmax(axis=1)
    return np.where(differs.any(axis=1), last, depths if counting == "published" else 0)


def kept_for_order(saturated: Int[ndarray, "image place"], depths: int) -> Bool[ndarray, " image"]:
    """Images whose top class saturates early enough for an order to show: ``s_1 ≤ ⌊0.85 L⌋``."""
    return np.asarray(saturated[:, 0] <= int(0.85 * depths))


def order_of_saturation(saturated: Int[ndarray, "image place"]) -> Float[ndarray, " image"]:
    """Strict Kendall τ of the places 1…K against the depths at which they saturate, -1 to 1.

    A pair agrees where the better place saturates strictly earlier; a tie counts as disagreement. NaN for one place.

    Examples:
        >>> order_of_saturation(np.array([[1, 2, 3], [3, 2, 1], [2, 2, 2]]))
        array([ 1., -1., -1.])
    """
    pairs = saturated.shape[1] * (saturated.shape[1] - 1) // 2
    agreeing = _agreeing_pairs(saturated)
    return 2 * agreeing / pairs - 1 if pairs else np.full(len(saturated), np.nan)


def shuffle_places(saturated: Int[ndarray, "image place"], statistics: Statistics) -> float:
    """One-sided permutation test of the mean τ: under the null, the depths of an image go with its places at random.

    How many pairs agree after a permutation depends only on which depths tie. So permuting the images of one pattern of
    ties is a multinomial draw from the permutations of that pattern. Returns ``(1 + hits) / (1 + permutations)``; NaN
    without images, or with one place.

    Examples:
        >>> shuffle_places(np.tile([1, 2, 3, 4, 5], (20, 1)), Statistics(permutations=999))
        0.001
    """
    images, places = saturated.shape
    if not images or places < 2:
        return float("nan")
    rng = np.random.default_rng(statistics.seed)
    rises = np.diff(np.sort(saturated, axis=1), axis=1) > 0
    patterns, counts = np.unique(rises, axis=0, return_counts=True)
    orders = np.array(list(permutations(range(places))))
    sums = np.zeros(statistics.permutations, dtype=np.int64)
    for pattern, count in zip(patterns, counts, strict=True):
        agreeing = np.bincount(_agreeing_pairs(np.concatenate([[0], np.cumsum(pattern)])[orders]))
        sums += rng.multinomial(count, agreeing / agreeing.sum(), statistics.permutations) @ np.arange(len(agreeing))
    hits = int((sums >= _agreeing_pairs(saturated).sum()).sum())
    return (1 + hits) / (1 + statistics.permutations)


def shuffled_order(saturated: Int[ndarray, "image place"]) -> float:
    """The mean τ that ``shuffle_places`` expects: of two depths that differ, either may come first.

    Examples:
        >>> shuffled_order(np.array([[1, 2, 3], [2, 2, 2]]))
        -0.5
    """
    images, places = saturated.shape
    if not images or places < 2:
        return float("nan")
    differing = _agreeing_pairs(saturated) + _agreeing_pairs(saturated[:, ::-1])
    return float((differing / (places * (places - 1) // 2)).mean() - 1)


def _agreeing_pairs(saturated: Int[ndarray, "image place"]) -> Int[ndarray, " image"]:
    agreeing = np.zeros(len(saturated), dtype=np.int64)
    for better, worse in combinations(range(saturated.shape[1]), 2):
        agreeing += saturated[:, better] < saturated[:, worse]
    return agreeing


def reciprocal_rank(rank: Int[ndarray, "image depth"], classes: int) -> Float[ndarray, "image depth"]:
    """``1 / (rank + 1) - 1 / C``: 0 for the last of C classes, with rank 0 on top.

    Its area, and those of entropy and ``|log p|``, are sums over depth. Source: Hu, Lepori and Franke, 2025.

    Examples:
        >>> reciprocal_rank(np.array([[3, 0]]), 4)
        array([[0.  , 0.75]])
    """
    return np.asarray(1 / (rank + 1.0) - 1 / classes)


def biggest_change(values: Float[ndarray, "image depth"]) -> Float[ndarray, " image"]:
    """``argmax_ℓ (v[ℓ+1] - v[ℓ])``, the first of several; NaN for one depth. Give minus entropy, which falls.

    Source: Hu, Lepori and Franke, 2025.

    Examples:
        >>> biggest_change(np.array([[0.0, 0.1, 0.9, 1.0]]))
        array([1.])
    """
    if values.shape[1] < 2:
        return np.full(len(values), np.nan)
    return np.asarray(np.diff(values, axis=1).argmax(axis=1).astype(np.float64))


class TwoClassMeasures(NamedTuple):
    """How two classes compete over depth, from ``d = ln p(a) - ln p(b)``; see ``two_class_measures``."""

    area_for: Float[ndarray, " image"]
    area_against: Float[ndarray, " image"]
    change_of_mind: Float[ndarray, " image"]
    time_to_decision: Float[ndarray, " image"]


def two_class_measures(difference: Float[ndarray, "image depth"]) -> TwoClassMeasures:
    """Measures of ``d``, the log probability of one class minus that of another.

    ``area_for = Σ max(d, 0)`` and ``area_against = Σ max(-d, 0)``. ``change_of_mind = min(0, d[L-1]) - min d``: how far
    the other class was ahead, beyond the end. ``time_to_decision = (t+1) / L``, with t the first depth from which on d
    is never negative; ``L-1`` if it ends negative. Source: Hu, Lepori and Franke, 2025.

    Examples:
        >>> two_class_measures(np.array([[1.0, -2.0, 0.0, 3.0]])).time_to_decision
        array([0.75])
    """
    depths = difference.shape[1]
    negative = difference < 0
    after = np.where(negative.any(axis=1), depths - negative[:, ::-1].argmax(axis=1), 0)
    return TwoClassMeasures(
        np.maximum(difference, 0).sum(axis=1),
        np.maximum(-difference, 0).sum(axis=1),
        np.minimum(0, difference[:, -1]) - difference.min(axis=1),
        (np.minimum(after, depths - 1) + 1) / depths,
    )


def change_share(top1: Int[ndarray, "image depth"]) -> Float[ndarray, " image"]:
    """Share of consecutive depths between which the top class changes; NaN for one depth.

    Examples:
        >>> change_share(np.array([[1, 1, 2, 1, 1]]))
        array([0.5])
    """
    if top1.shape[1] < 2:
        return np.full(len(top1), np.nan)
    return np.asarray((top1[:, 1:] != top1[:, :-1]).mean(axis=1))


def top_overlap(
    top: Int[ndarray, "image depth place"], top_logit: Float[ndarray, "image depth place"]
) -> Float[ndarray, " image"]:
    """Weighted Jaccard index of the top classes of consecutive depths, 0 to 1, a mean; NaN for one depth.

    The weights ``w`` of a depth are the softmax of its top logits: ``I / (2 - I)`` with ``I = Σ min(w[ℓ], w[ℓ+1])``
    over the classes on top of both. Source: LogitDynamics, 2026, arXiv 2604.10643.

    Examples:
        >>> top_overlap(np.array([[[1, 2], [2, 1]]]), np.zeros((1, 2, 2)))
        array([1.])
    """
    if top.shape[1] < 2:
        return np.full(len(top), np.nan)
    weight = np.exp(top_logit - top_logit.max(axis=-1, keepdims=True), dtype=np.float64)
    weight /= weight.sum(axis=-1, keepdims=True)
    same = top[:, 1:, :, None] == top[:, :-1, None, :]
    both = (same * np.minimum(weight[:, 1:, :, None], weight[:, :-1, None, :])).sum(axis=(2, 3))
    return np.asarray((both / (2 - both)).mean(axis=1))


def classes_on_top(top: Int[ndarray, "image depth place"]) -> Int[ndarray, " image"]:
    """Number of classes among the top classes of any depth.

    Examples:
        >>> classes_on_top(np.array([[[1, 2], [2, 3]]]))
        array([3])
    """
    ordered = np.sort(top.reshape(len(top), -1), axis=1)
    return np.asarray(1 + (np.diff(ordered, axis=1) != 0).sum(axis=1))


class Spread(NamedTuple):
    """Top-1 classes of an image over depth: how many, the share of the most frequent, and their entropy in nats."""

    number: Float[ndarray, " image"]
    mode_share: Float[ndarray, " image"]
    entropy: Float[ndarray, " image"]


def spread(top1: Int[ndarray, "image depth"]) -> Spread:
    """How the top-1 classes of an image spread over depth.

    Examples:
        >>> spread(np.array([[4, 4, 4, 9]])).mode_share
        array([0.75])
    """
    depths = top1.shape[1]
    counts = (top1[:, :, None] == top1[:, None, :]).sum(axis=2)
    return Spread((1 / counts).sum(axis=1).round(), counts.max(axis=1) / depths, -np.log(counts / depths).mean(axis=1))
