"""Measures of error detection against scikit-learn, and against a literal twin of the risk-coverage curve."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from classlens.core.error_detection import MEASURES, detection, risk_coverage


def drawn(images: int, levels: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Doubt with ties, wrong predictions, and how often images are drawn; some not at all."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(images) < 0.3
    wrong[:2] = [True, False]
    doubt = (rng.integers(0, levels, images) + wrong * rng.integers(0, 2, images)) / 7
    counts = rng.integers(0, 3, (4, images)).astype(np.float64)
    counts[:, :2] = 1
    return doubt, wrong, counts


@pytest.mark.parametrize("levels", [1, 5, 1000])
def test_measures_equal_scikit_learn_with_weights(levels: int) -> None:
    doubt, wrong, counts = drawn(60, levels, seed=levels)
    values = detection(doubt, wrong)(counts)
    for weights, row in zip(counts, values, strict=True):
        of = dict(zip(MEASURES, row, strict=True))
        assert of["auroc"] == pytest.approx(roc_auc_score(wrong, doubt, sample_weight=weights), abs=1e-12)
        assert of["aupr"] == pytest.approx(average_precision_score(wrong, doubt, sample_weight=weights), abs=1e-12)
        fpr, tpr, _ = roc_curve(wrong, doubt, sample_weight=weights, drop_intermediate=False)
        assert of["fpr"] == pytest.approx(fpr[tpr >= 0.95 - 1e-12].min(), abs=1e-12)


def test_area_is_the_mean_over_the_orders_of_images_with_the_same_doubt() -> None:
    doubt, wrong = np.array([2, 0, 1, 1, 1, 0]), np.array([True, False, True, False, True, True])
    counts = np.array([[1, 1, 2, 1, 0, 1]], dtype=np.float64)
    copies = np.repeat(np.arange(6), counts[0].astype(int))
    orders = [order for order in permutations(copies) if all(np.diff(doubt[list(order)]) >= 0)]
    areas = [(np.cumsum(wrong[list(order)]) / np.arange(1, 7)).mean() for order in orders]
    best = (np.cumsum(sorted(wrong[copies])) / np.arange(1, 7)).mean()
    _, _, area, excess, _ = detection(doubt.astype(float), wrong)(counts)[0]
    assert area == pytest.approx(np.mean(areas), abs=1e-12)
    assert excess == pytest.approx(np.mean(areas) - best, abs=1e-12)


def test_without_a_wrong_prediction_only_risk_is_defined() -> None:
    values = detection(np.array([0.1, 0.2]), np.array([False, False]))(np.ones((1, 2)))[0]
    assert np.isnan(values).tolist() == [True, True, False, False, True]
    assert values[2:4].tolist() == [0, 0]
    only_wrong = detection(np.array([0.1, 0.2]), np.array([True, True]))(np.ones((1, 2)))[0]
    assert only_wrong[[1, 2, 3]].tolist() == [1, 1, 0]


def test_curve_keeps_images_with_the_same_doubt_together() -> None:
    coverage, risk = risk_coverage(np.array([3.0, 1, 1, 2]), np.array([True, False, True, False]))
    assert coverage.tolist() == [0.5, 0.75, 1]
    assert risk.tolist() == pytest.approx([1 / 2, 1 / 3, 1 / 2])
