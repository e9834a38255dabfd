"""Scores of doubt: what they can learn, what they cannot see, and which stores they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from classlens.analysis.doubt import DOUBT_METHODS, Decisions, trajectory_features
from classlens.analysis.reliability import _doubt, _Measured, _scores, reliability
from classlens.core.stats import Statistics
from classlens.errors import ClasslensError
from tests.analysis.stores import StoreSpec, write_store

QUICK = Statistics(resamples=200)
DEPTHS, CLASSES = 5, 7


def drawn(images: int, seed: int, *, told_by: str | None = None) -> _Measured:
    """Random logits at every depth; right and wrong are drawn apart from them, and told by one number alone."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(images, DEPTHS, CLASSES))
    wrong = rng.random(images) < 0.4
    top = np.argsort(-logits, axis=-1)[..., :5]
    probability = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    decisions = Decisions(
        top,
        np.take_along_axis(logits, top, axis=-1),
        np.take_along_axis(logits, np.broadcast_to(top[:, -1:], top.shape), axis=-1),
        np.log(np.exp(logits).sum(axis=-1)),
        -(probability * np.log(probability)).sum(axis=-1),
    )
    if told_by == "early entropy":
        decisions.entropy[:, 1] = wrong
    return _Measured(decisions, pd.DataFrame({"correct": 1.0 - wrong}))


def test_what_tells_nothing_is_chance() -> None:
    doubt, tested = doubt_of(drawn(600, 0), drawn(600, 1))
    scores = _scores(doubt, tested.wrong, Statistics(resamples=500)).set_index(["method", "measure"])
    for method in DOUBT_METHODS:
        row = scores.loc[(method, "auroc")]
        assert row["low"] < 0.5 < row["high"]
        assert row["high"] - row["low"] < 0.12


def test_one_feature_that_is_the_error_is_found_by_the_trajectory_alone() -> None:
    doubt, tested = doubt_of(drawn(300, 0, told_by="early entropy"), drawn(300, 1, told_by="early entropy"))
    scores = _scores(doubt, tested.wrong, QUICK).pivot(index="method", columns="measure", values="value")
    perfect = scores.loc["trajectory", ["auroc", "aupr", "fpr", "excess_aurc"]].tolist()
    assert perfect == pytest.approx([1, 1, 0, 0], abs=1e-12)
    assert (scores.drop(index="trajectory")["auroc"] < 0.7).all()


def doubt_of(train: _Measured, test: _Measured) -> tuple[dict[str, np.ndarray], _Measured]:
    return _doubt(train, test), test


def test_scores_of_the_output_by_hand() -> None:
    measured = drawn(50, 3)
    logits, top = measured.decisions.top_logit[:, -1], measured.decisions.top[:, -1]
    assert top.shape == (50, 5)
    total = np.exp(measured.decisions.logsumexp[:, -1])
    doubt = _doubt(drawn(80, 4), measured)
    np.testing.assert_allclose(doubt["max_softmax"], 1 - np.exp(logits[:, 0]) / total)
    np.testing.assert_allclose(doubt["margin"], logits[:, 1] - logits[:, 0])
    np.testing.assert_allclose(doubt["energy"], -np.log(total))
    np.testing.assert_allclose(doubt["entropy"], measured.decisions.entropy[:, -1])


def test_sure_predictions_do_not_tie() -> None:
    """In float32 the probabilities of both are 1 exactly."""
    logits = np.array([[[40.0, 10, 9]], [[40.0, 12, 9]]], dtype=np.float32)
    top = np.broadcast_to(np.arange(3), logits.shape)
    logsumexp = np.float32(40) + np.zeros((2, 1), dtype=np.float32)
    sure = Decisions(top, logits, logits, logsumexp, np.zeros_like(logsumexp))
    doubt = DOUBT_METHODS["max_softmax"].features(sure)
    others = np.exp(logits[:, 0, 1:].astype(np.float64) - 40).sum(axis=1)
    np.testing.assert_allclose(doubt, others / (1 + others), rtol=1e-12)
    assert doubt[0] < doubt[1]


def test_regression_is_that_of_scikit_learn_on_the_training_images() -> None:
    train, test = drawn(120, 5), drawn(60, 6)
    doubt = _doubt(train, test)
    for name, features in (("trajectory", trajectory_features), ("top_logits", lambda given: given.top_logit[:, -1])):
        scaler = StandardScaler().fit(features(train.decisions))
        model = LogisticRegression(max_iter=10_000).fit(scaler.transform(features(train.decisions)), train.wrong)
        wanted = model.predict_proba(scaler.transform(features(test.decisions)))[:, 1]
        np.testing.assert_allclose(doubt[name], wanted, atol=1e-6)


def test_differences_are_paired_and_from_the_best() -> None:
    doubt, test = doubt_of(drawn(200, 7, told_by="early entropy"), drawn(200, 8, told_by="early entropy"))
    table = _scores(doubt, test.wrong, QUICK).set_index(["method", "measure"])
    assert (table.loc["trajectory"][["difference", "difference_low", "difference_high"]] == 0).all(axis=None)
    row = table.loc[("margin", "auroc")]
    assert row["difference"] == pytest.approx(roc_auc_score(test.wrong, doubt["margin"]) - 1)
    # The best is 1 in every resample, so that the interval of the difference is that of the value less 1.
    assert row["difference_low"] == pytest.approx(row["low"] - 1)
    assert row["difference_high"] == pytest.approx(row["high"] - 1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reliability") / "a.zarr"
    write_store(path, StoreSpec(images=60, blocks=12))
    return path


def test_halves_do_not_leak(store: Path) -> None:
    """More features than images: a regression that has seen the tested images would tell all of them."""
    result = reliability(store, statistics=QUICK)
    assert result.train["images"] + result.test["images"] == 60
    assert len(result.images) == result.test["images"] == 30
    measured = result.scores.set_index(["method", "measure"])["value"]
    assert trajectory_features(drawn(2, 0).decisions).shape[1] > 25
    assert measured["trajectory", "auroc"] < 0.9
    assert result.images["trajectory"].is_monotonic_decreasing
    again = reliability(store, statistics=Statistics(seed=1, resamples=5))
    assert set(again.images["image"]) != set(result.images["image"]), "the seed draws the halves"


def test_stores_that_do_not_go_together(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ClasslensError, match="share 60 images, such as"):
        reliability(store, store)
    write_store(tmp_path / "unlabeled.zarr", StoreSpec(labels=False))
    with pytest.raises(ClasslensError, match="have no labels"):
        reliability(tmp_path / "unlabeled.zarr")
