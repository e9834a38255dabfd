"""Logits at each depth, reduced, against loops in float64 and a full sort."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from classlens.core.depth_facts import depth_facts, group_logits, top_classes
from classlens.errors import ClasslensError


def _sorted(row: list[float]) -> list[int]:
    return sorted(range(len(row)), key=lambda category: (-row[category], category))


@st.composite
def trajectories(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Logits by image, depth and class; few distinct values in half of the cases, so that many tie."""
    images, depths, classes = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(2, 9))
    value = draw(st.sampled_from([st.integers(-1, 1).map(float), st.floats(-60, 60, width=32)]))
    size = images * depths * classes
    logits = torch.tensor(draw(st.lists(value, min_size=size, max_size=size))).reshape(images, depths, classes)
    target = draw(st.lists(st.integers(0, classes - 1), min_size=images, max_size=images))
    return logits, torch.tensor(target)


@given(trajectories(), st.integers(1, 5))
def test_every_fact_by_loops(drawn: tuple[Tensor, Tensor], k: int) -> None:
    logits, target = drawn
    images, depths, classes = logits.shape
    k = min(k, classes)
    found = depth_facts(logits, target, k)
    for image in range(images):
        final = _sorted(logits[image, -1].tolist())[:k]
        for depth in range(depths):
            row, of_interest = logits[image, depth].tolist(), int(target[image])
            top = _sorted(row)[:k]
            assert found.top[image, depth].tolist() == top
            assert found.top_logit[image, depth].tolist() == [row[category] for category in top]
            assert found.final_logit[image, depth].tolist() == [row[category] for category in final]
            assert found.rank[image, depth] == sum(value > row[of_interest] for value in row)
            assert found.logit[image, depth] == row[of_interest]
            log_sum = max(row) + math.log(math.fsum(math.exp(value - max(row)) for value in row))
            shares = [math.exp(value - log_sum) for value in row]
            entropy = -math.fsum(share * (value - log_sum) for share, value in zip(shares, row, strict=True))
            # float32, of sums of at most nine terms; the shift by the largest logit leaves the rounding of a sum.
            assert float(found.logsumexp[image, depth]) == pytest.approx(log_sum, rel=1e-6, abs=1e-6)
            assert float(found.entropy[image, depth]) == pytest.approx(entropy, rel=2e-6, abs=2e-6)


def test_a_sure_model_has_a_small_entropy_that_is_not_rounded_away() -> None:
    logits = torch.tensor([[[100.0, 88.0, 85.0]]])
    shares = [math.exp(-12.0), math.exp(-15.0)]
    expected = shares[0] * 12 + shares[1] * 15 + sum(shares)
    found = depth_facts(logits, torch.tensor([0]), 1)
    # log1p of the others is rounded to steps of 1.2e-7 in float32; 100 - 12 in place of -12 would cost 1e-5.
    assert float(found.entropy) == pytest.approx(expected, abs=3e-7)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite_are_refused(value: float) -> None:
    logits = torch.zeros(2, 3, 4)
    logits[1, 1, 2] = value
    with pytest.raises(ClasslensError, match="finite"):
        depth_facts(logits, torch.tensor([0, 0]), 2)


def test_ties_of_many_classes_take_the_first() -> None:
    """More classes than a vectorized topk keeps in order."""
    logits = torch.zeros(3, 300)
    logits[:, 100:150] = 1.0
    logits[1, 120] = 2.0
    assert top_classes(logits, 4).tolist() == [[100, 101, 102, 103], [120, 100, 101, 102], [100, 101, 102, 103]]
    assert top_classes(logits, 300)[0].tolist() == np.argsort(-logits[0].numpy(), kind="stable").tolist()


@given(trajectories(), st.data())
def test_groups_are_mean_probabilities_renormalized(drawn: tuple[Tensor, Tensor], data: st.DataObject) -> None:
    logits = drawn[0].double()
    groups = [0, 1, *(data.draw(st.integers(-1, 1)) for _ in range(logits.shape[-1] - 2))]
    found = group_logits(logits, torch.tensor(groups)).softmax(dim=-1)
    for row, pair in zip(logits.flatten(0, 1).tolist(), found.flatten(0, 1).tolist(), strict=True):
        shares = [math.exp(value) / math.fsum(map(math.exp, row)) for value in row]
        members = [[share for share, own in zip(shares, groups, strict=True) if own == group] for group in (0, 1)]
        means = [math.fsum(of_group) / len(of_group) for of_group in members]
        assert pair == pytest.approx([mean / sum(means) for mean in means], rel=1e-12, abs=1e-15)


def test_groups_of_hand() -> None:
    """Far below the others a group keeps its logit; the size of a group does not count."""
    logits = torch.tensor([[math.log(0.1), math.log(0.3), 1000.0, -1000.0, -1000.0]], dtype=torch.float64)
    found = group_logits(logits, torch.tensor([1, 1, -1, 0, 0]))
    assert found.flatten().tolist() == pytest.approx([-1000, math.log(0.2)], rel=1e-15)


def test_an_image_without_a_class_of_interest() -> None:
    facts = depth_facts(torch.tensor([[[0.0, 2.0]], [[0.0, 2.0]]]), torch.tensor([0, -1]), 2)
    assert facts.rank.tolist() == [[1], [-1]]
    assert np.isnan(facts.logit.numpy()).tolist() == [[False], [True]]
    assert facts.top.tolist() == [[[1, 0]], [[1, 0]]]
    assert bool(facts.entropy.isfinite().all())
