"""Logistic probes compared with scikit-learn on standardized features."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from classlens.core.probes import LinearProbes
from classlens.tasks.probes.logistic import LogisticFeatures
from tests.refusals import refused

PROBES, WIDTH = 2, 6


def data(known: list[int], images: int = 60) -> tuple[Tensor, Tensor]:
    label = torch.tensor(known)[torch.arange(images) % len(known)]
    features = torch.randn(images, PROBES, WIDTH, dtype=torch.float64)
    features += 1.5 * torch.nn.functional.one_hot(label % WIDTH, WIDTH)[:, None]
    # Like a residual stream: channels of very different scales and means.
    return features * torch.tensor([1.0, 100.0, 1.0, 0.01, 1.0, 5.0]) + torch.tensor([0.0, 30, -2, 0, 1, 7]), label


def solved(features: Tensor, label: Tensor, classes: int, alpha: float) -> LinearProbes:
    learner = LogisticFeatures(PROBES, WIDTH, classes)
    for part in (slice(0, 11), slice(11, None)):
        learner.update(features[part], label[part])
    return learner.solve(alpha)


def direct(features: Tensor, label: Tensor, alpha: float) -> Any:
    x = features.float().double().numpy()
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LogisticRegression(C=1 / alpha, max_iter=1000).fit(x, label.numpy()).predict_log_proba(x)


@pytest.mark.parametrize("alpha", [1.0, 0.05])
@pytest.mark.parametrize("known", [[0, 1, 2, 3], [1, 4, 6], [2, 5], [0, 6]])
def test_against_scikit_learn(known: list[int], alpha: float) -> None:
    """Also for classes without an image, and for two classes, where scikit-learn gives one row of log odds."""
    features, label = data(known)
    probes = solved(features, label, 7, alpha)
    scores = probes.project(features)
    assert probes.weight.dtype == torch.float32
    for probe in range(PROBES):
        log_probabilities = scores[:, probe].log_softmax(dim=-1)[:, known].numpy()
        # Weights are rounded to float32, with scores of order 10.
        np.testing.assert_allclose(log_probabilities, direct(features[:, probe], label, alpha), rtol=0, atol=1e-4)
    missing = [category for category in range(7) if category not in known]
    assert (scores[..., missing] == -1e9).all()
    facts = probes.facts(features, label)
    assert int(facts.rank.max()) < len(known)
    assert set(facts.top1.tolist()) <= set(known)


def test_a_constant_channel() -> None:
    features, label = data([0, 1, 2])
    features[..., 3] = 0.25
    probes = solved(features, label, 3, 1.0)
    assert torch.isfinite(probes.weight).all()
    assert (probes.weight[:, 3] == 0).all()


def test_ram_of_features() -> None:
    features, label = data([0, 1])
    learner = LogisticFeatures(PROBES, WIDTH, 2)
    learner.update(features, label)
    assert LogisticFeatures.bytes_of(WIDTH, 60) * PROBES == sum(batch.nbytes for batch in learner._features)


def test_mistakes() -> None:
    features, label = data([3])
    refused(lambda: solved(features, label, 4, 1.0), "at least two classes")
    refused(lambda: LogisticFeatures(1, 2, 3).solve(), "at least two classes")
    refused(lambda: solved(features, label, 4, 0.0), "alpha is 0.0")


def test_features_are_copied() -> None:
    """The caller reuses its float32 buffer for the next images."""
    features, label = data([0, 1, 2])
    buffer = torch.empty(30, PROBES, WIDTH)
    learner = LogisticFeatures(PROBES, WIDTH, 3)
    for part in (slice(0, 30), slice(30, 60)):
        buffer.copy_(features[part])
        learner.update(buffer, label[part])
    expected = solved(features, label, 3, 1.0)
    torch.testing.assert_close(learner.solve().weight, expected.weight, rtol=0, atol=1e-6)
