"""Token removal, compared with a forward pass in loops that drops tokens one by one; areas computed by hand."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from classlens.core.stats import Statistics
from classlens.tasks.evaluation.image_batch import EvaluationSettings
from classlens.tasks.evaluation.metric import MetricAxes
from classlens.tasks.evaluation.metrics.removal import Removal, auc_reference, both_orders, numbers_kept
from tests import zoo
from tests.forward.slow import Changes, slow
from tests.tasks.evaluation.batches import batch_of, lens_of, method_of

NAME = "cls_not_square"  # six image tokens behind [CLS]


def is_among(tokens: set[int], image: int, token: int) -> bool:
    return token in tokens


def is_correct(pixels: Tensor, kept: list[int], label: int) -> bool:
    """Whether the prediction from ``[CLS]`` and these image tokens is correct."""
    tokens = {0, *(1 + token for token in kept)}
    run = slow(NAME, zoo.build(NAME), pixels[None], Changes(kept=partial(is_among, tokens)))
    return int(run.logits.argmax()) == label


@pytest.mark.parametrize("method", ["class_gradient:loss=logit", "class_rank"])
def test_against_dropping_tokens_one_by_one(method: str) -> None:
    lens, pixels, target = lens_of(), zoo.pixels(NAME, 3), zoo.targets(3)
    target[0] = lens.view.run(pixels[:1]).argmax()
    importance = method_of(method)
    correct = Removal().measure(batch_of(lens, pixels, target), importance)["correct"]
    assert correct.shape == (3, 2, 6)
    maps = importance.explain(lens.trace(pixels), target)
    for image in range(3):
        ranked = [token for _, token in sorted((-value, token) for token, value in enumerate(maps[image].tolist()))]
        for column, number in enumerate(range(6, 0, -1)):
            label = int(target[image])
            assert correct[image, 0, column] == is_correct(pixels[image], ranked[:number], label)
            assert correct[image, 1, column] == is_correct(pixels[image], ranked[-number:], label)
    assert set(correct.flatten().tolist()) == {0, 1}


def test_random_orders_are_the_same_for_all_images_and_from_recorded_seeds() -> None:
    lens, pixels, target = lens_of(), zoo.pixels(NAME, 2), zoo.targets(2)
    random = method_of("random")
    settings = EvaluationSettings(permutations=3, seed=4)
    orders = Removal().coords(MetricAxes((3, 2), 3, True, settings))["order"]
    assert orders.tolist() == ["random 4", "random 5", "random 6"]
    correct = Removal().measure(batch_of(lens, pixels, target, settings=settings), random)["correct"]
    for number in range(3):
        order = torch.randperm(6, generator=torch.Generator().manual_seed(4 + number)).tolist()
        for image in range(2):
            for column, kept in enumerate(range(6, 0, -1)):
                assert correct[image, number, column] == is_correct(pixels[image], order[:kept], int(target[image]))


def test_equal_values_keep_the_order_of_the_grid() -> None:
    orders = both_orders(torch.tensor([[1.0, 2.0, 1.0, 2.0]]))
    assert orders[0, 0].tolist() == [1, 3, 0, 2]
    assert orders[0, 1].tolist() == [2, 0, 3, 1]


@given(st.integers(1, 300), st.integers(2, 60))
def test_numbers_of_tokens(tokens: int, steps: int) -> None:
    assert numbers_kept(tokens, "all").tolist() == list(range(tokens, 0, -1))
    numbers = numbers_kept(tokens, steps)
    assert numbers[0] == tokens
    assert numbers[-1] == 1
    assert len(numbers) == min(steps, tokens)
    gaps = -np.diff(numbers)
    assert (gaps >= 1).all()
    assert gaps.max(initial=0) - gaps.min(initial=tokens) <= 1


def test_area_as_published() -> None:
    """``Σ acc / (max acc · N)`` over n = N-1 … 1: the accuracy with all five tokens does not count."""
    accuracy = np.array([[0.9, 0.8, 0.6, 0.4, 0.2]])
    assert auc_reference(np.array([5, 4, 3, 2, 1]))(accuracy)[0] == pytest.approx((0.8 + 0.6 + 0.4 + 0.2) / (0.8 * 5))
    # Numbers that were not measured are interpolated.
    interpolated = auc_reference(np.array([5, 3, 1]))(np.array([[0.9, 0.6, 0.2]]))[0]
    assert interpolated == pytest.approx((0.75 + 0.6 + 0.4 + 0.2) / (0.75 * 5))
    assert np.isnan(auc_reference(np.array([3, 2, 1]))(np.zeros((1, 3)))[0])


def test_scores_and_curves_of_known_images() -> None:
    correct = np.array([[[1, 1, 1], [1, 0, 0]], [[1, 1, 0], [0, 0, 0]]], dtype=np.int8)
    data = xr.Dataset(
        {"correct": (("image", "order", "kept"), correct)},
        {"order": ["negative", "positive"], "kept": [3, 2, 1]},
    )
    statistics = Statistics(resamples=500)
    scores = {score.measure: score for score in Removal().scores(data, statistics)}
    assert scores["negative_auc_reference"].value == pytest.approx((1 + 0.5) / (1 * 3))
    assert scores["negative_auc"].value == pytest.approx((1 + 0.75) / 2)
    assert scores["positive_auc"].value == pytest.approx((0.25 + 0) / 2)
    assert np.isnan(scores["positive_auc_reference"].value)
    assert (scores["negative_auc"].better, scores["positive_auc"].better) == ("higher", "lower")
    # Two images: a resample holds both or one of them twice, so the interval spans their values.
    assert (scores["negative_auc"].low, scores["negative_auc"].high) == pytest.approx((0.75, 1.0))
    points = [point for point in Removal().points(data, statistics) if point.curve == "negative"]
    assert [point.x for point in points] == pytest.approx([0, 1 / 3, 2 / 3])
    assert [point.value for point in points] == [1, 1, 0.5]


def test_random_orders_count_for_both_directions() -> None:
    correct = np.array([[[1, 1], [1, 0]]], dtype=np.int8)
    data = xr.Dataset(
        {"correct": (("image", "order", "kept"), correct)}, {"order": ["random 0", "random 1"], "kept": [2, 1]}
    )
    points = list(Removal().points(data, Statistics(resamples=10)))
    assert [(point.curve, point.value) for point in points] == [
        ("negative", 1),
        ("negative", 0.5),
        ("positive", 1),
        ("positive", 0.5),
    ]
