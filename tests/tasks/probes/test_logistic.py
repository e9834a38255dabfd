"""Logistic probes against scikit-learn called directly on standardised features."""

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

PLACES, WIDTH = 2, 6


def made(known: list[int], images: int = 60) -> tuple[Tensor, Tensor]:
    label = torch.tensor(known)[torch.arange(images) % len(known)]
    features = torch.randn(images, PLACES, WIDTH, dtype=torch.float64)
    features += 1.5 * torch.nn.functional.one_hot(label % WIDTH, WIDTH)[:, None]
    # As residual streams are: channels of very different sizes and means.
    return features * torch.tensor([1.0, 100.0, 1.0, 0.01, 1.0, 5.0]) + torch.tensor([0.0, 30, -2, 0, 1, 7]), label


def solved(features: Tensor, label: Tensor, classes: int, alpha: float) -> LinearProbes:
    held = LogisticFeatures(PLACES, WIDTH, classes)
    for part in (slice(0, 11), slice(11, None)):
        held.update(features[part], label[part])
    return held.solve(alpha)


def direct(features: Tensor, label: Tensor, alpha: float) -> Any:
    x = features.float().double().numpy()
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LogisticRegression(C=1 / alpha, max_iter=1000).fit(x, label.numpy()).predict_log_proba(x)


@pytest.mark.parametrize("alpha", [1.0, 0.05])
@pytest.mark.parametrize("known", [[0, 1, 2, 3], [1, 4, 6], [2, 5], [0, 6]])
def test_against_scikit_learn(known: list[int], alpha: float) -> None:
    """Also where classes have no image, and where there are two, of which scikit-learn makes one row of log odds."""
    features, label = made(known)
    probes = solved(features, label, 7, alpha)
    scores = probes.project(features)
    assert probes.weight.dtype == torch.float32
    for place in range(PLACES):
        own = scores[:, place].log_softmax(dim=-1)[:, known].numpy()
        # Weights are rounded to float32, with scores of order 10.
        np.testing.assert_allclose(own, direct(features[:, place], label, alpha), rtol=0, atol=1e-4)
    missing = [one for one in range(7) if one not in known]
    assert (scores[..., missing] == -1e9).all()
    facts = probes.facts(features, label)
    assert int(facts.rank.max()) < len(known)
    assert set(facts.top1.tolist()) <= set(known)


def test_a_channel_that_never_changes() -> None:
    features, label = made([0, 1, 2])
    features[..., 3] = 0.25
    probes = solved(features, label, 3, 1.0)
    assert torch.isfinite(probes.weight).all()
    assert (probes.weight[:, 3] == 0).all()


def test_memory_is_what_it_says() -> None:
    features, label = made([0, 1])
    held = LogisticFeatures(PLACES, WIDTH, 2)
    held.update(features, label)
    assert LogisticFeatures.bytes_of(WIDTH, 60) * PLACES == sum(one.nbytes for one in held._features)


def test_what_cannot_be_solved() -> None:
    features, label = made([3])
    refused(lambda: solved(features, label, 4, 1.0), "two classes at least")
    refused(lambda: LogisticFeatures(1, 2, 3).solve(), "two classes at least")
    refused(lambda: solved(features, label, 4, 0.0), "alpha is 0.0")
