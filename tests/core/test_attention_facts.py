"""Distance and entropy of attention against loops over tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from classlens.core.attention_facts import attention_distance, attention_entropy


def test_distance_is_that_of_a_loop() -> None:
    weights = torch.rand(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(dim=-1)
    rows, columns, prefix = 2, 3, 2
    expected = np.zeros((2, 3))
    for image in range(2):
        for head in range(3):
            for query in range(6):
                total = distance = 0.0
                for key in range(6):
                    weight = float(weights[image, head, prefix + query, prefix + key])
                    total += weight
                    distance += weight * math.dist(divmod(query, columns), divmod(key, columns))
                expected[image, head] += distance / total / 6
    np.testing.assert_allclose(attention_distance(weights, (rows, columns)), expected, rtol=1e-12)


def test_cases_by_hand() -> None:
    own = torch.eye(4).expand(1, 1, 4, 4)
    assert attention_distance(own, (2, 2)).item() == 0
    assert attention_entropy(own).item() == 0
    flat = torch.full((1, 1, 4, 4), 0.25)
    # To itself, two neighbors, and one across.
    assert attention_distance(flat, (2, 2)).item() == pytest.approx((0 + 1 + 1 + math.sqrt(2)) / 4)
    assert attention_entropy(flat).item() == pytest.approx(math.log(4))
