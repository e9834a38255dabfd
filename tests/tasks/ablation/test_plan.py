"""Heads are chosen by one half alone; statistics against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.stats import spearmanr, ttest_ind

from classlens import Statistics
from classlens.tasks.ablation.choice import (
    Pair,
    choosing_half,
    confusion_pairs,
    random_heads,
    random_parts,
    strongest_heads,
)
from classlens.tasks.ablation.plan import Plan, PlanSettings
from classlens.tasks.ablation.scores import HEAD_SCORES
from classlens.tasks.ablation.tables import agreement_rows, effect_rows, pair_rows, table_names

LABELS = np.array([0, 1, 1, 0, 2, 1, 0, 1, 1, 0, -1])
RNG = np.random.default_rng(0)


def test_only_the_choosing_half_chooses() -> None:
    """Images of the two halves have their largest scores at different heads."""
    labels = LABELS[LABELS >= 0]
    choosing = choosing_half(labels, seed=3)
    scores = np.zeros((len(labels), 2, 3))
    scores[choosing, 1, 2] = 1
    scores[~choosing, 0, 1] = 50
    dims = ("image", "block", "head")
    effects = xr.Dataset(
        dict.fromkeys(HEAD_SCORES, (dims, scores))
        | {"label": ("image", labels), "predicted": ("image", np.where(choosing, 0, labels))}
    )
    plan = Plan.of(effects, [0, 1], PlanSettings(heads=1, draws=2, pairs=5, seed=3))
    assert plan.choosing.tolist() == choosing.tolist()
    assert plan.chosen == {label: dict.fromkeys(HEAD_SCORES, frozenset({("head", 1, 2)})) for label in (0, 1)}
    assert plan.pairs == [Pair(1, 0)], (
        "images of class 1 in the choosing half are predicted as 0, one of class 2 is not enough"
    )
    assert plan.rivals == {1: (0,)}


def test_halves_are_of_each_class() -> None:
    choosing = choosing_half(LABELS, seed=1)
    assert [int(choosing[label == LABELS].sum()) for label in (0, 1, 2, -1)] == [2, 3, 1, 0]
    assert any(choosing_half(LABELS, seed=seed).tolist() != choosing.tolist() for seed in range(5))


def test_choices_by_hand() -> None:
    scores = np.array([[[1.0, 5.0], [0.0, 3.0]], [[2.0, -1.0], [0.0, -1.0]]])  # means 1.5, 2, 0, 1
    assert strongest_heads(scores, 2) == {("head", 0, 1), ("head", 0, 0)}
    assert strongest_heads(np.zeros((3, 2, 2)), 1) == {("head", 0, 0)}
    drawn = random_heads(4, 3, 5, 40, seed=0)
    assert {len(parts) for parts in drawn} == {5}
    assert len(set().union(*drawn)) == 12
    truth, top = np.array([0, 0, 0, 0, 1, 1, 1, 2]), np.array([1, 1, 2, 0, 0, 0, 0, 2])
    assert confusion_pairs(truth, top, least=2, most=5) == [Pair(1, 0), Pair(0, 1)]
    assert confusion_pairs(truth, top, least=1, most=1) == [Pair(1, 0)]


def test_random_parts_are_like_the_chosen_ones() -> None:
    chosen = frozenset({("head", 1, 0), ("mlp", 0, 0), ("head", 0, 2)})
    drawn = random_parts(chosen, 3, 4, 30, [0, 2])
    assert {sum(kind == "mlp" for kind, _, _ in parts) for parts in drawn} == {1}
    assert {len(parts) for parts in drawn} == {3}
    assert {block for parts in drawn for kind, block, _ in parts if kind == "mlp"} == {0, 1, 2}


def test_names_of_several_classes_and_of_groups_have_their_index() -> None:
    assert table_names(["crane", "all", "crane", "cat", "right"]) == [
        "crane (0)",
        "all (1)",
        "crane (2)",
        "cat",
        "right (4)",
    ]


def test_a_constant_score_agrees_with_nothing() -> None:
    scores = {name: RNG.normal(size=(8, 2, 3)) for name in HEAD_SCORES} | {"class_gradient": np.zeros((8, 2, 3))}
    rows = agreement_rows(scores, np.repeat([0, 1], 4), range(2), Statistics(resamples=10))
    assert all(np.isnan(row["value"]) == (row["score"] == "class_gradient") for row in rows)


def test_statistics_against_scipy() -> None:
    scores = {name: RNG.normal(size=(12, 2, 4)) for name in HEAD_SCORES}
    labels = np.repeat([0, 1, 2], 4)
    statistics = Statistics(resamples=50)
    rows = {(row["score"], row["measure"]): row for row in agreement_rows(scores, labels, range(3), statistics)}
    flat = {name: values.reshape(12, -1) for name, values in scores.items()}
    for name in scores.keys() - {"ablation"}:
        total, values = flat["ablation"], flat[name]
        groups = [labels == label for label in range(3)]
        expected = {
            "mean": spearmanr(total.mean(axis=0), values.mean(axis=0)).statistic,
            "class mean": np.mean([spearmanr(total[g].mean(axis=0), values[g].mean(axis=0)).statistic for g in groups]),
            "image": np.mean([spearmanr(*pair).statistic for pair in zip(total, values, strict=True)]),
        }
        for measure, value in expected.items():
            row = rows[name, measure]
            assert row["value"] == pytest.approx(value)
            # A correlation of means over few images lies outside of its percentile interval at times.
            assert row["low"] < row["value"] < row["high"] or measure != "image"
    some = list(effect_rows(scores, {"right": labels > 0}, statistics))
    assert some[5]["value"] == pytest.approx(scores["ablation"][4:, 1, 1].mean())
    assert (some[5]["block"], some[5]["head"], some[5]["number"]) == (1, 1, 8)

    contrast = RNG.normal(size=(12, 3))
    parts = [("head", 0, 0), ("head", 0, 1), ("mlp", 0, 0)]
    confused, right = labels == 0, labels == 2
    found = list(pair_rows(Pair(1, 2), parts, contrast, confused, right, ["a", "b", "c"], statistics))
    test = ttest_ind(contrast[confused], contrast[right], equal_var=False)
    assert [row["p"] for row in found] == pytest.approx(test.pvalue)
    expected = contrast[confused].mean(axis=0) - contrast[right].mean(axis=0)
    assert [row["difference"] for row in found] == pytest.approx(expected)
    assert [row["part"] for row in found] == ["0.0", "0.1", "MLP 0"]
    assert (found[0]["label"], found[0]["rival"]) == ("b", "c")
