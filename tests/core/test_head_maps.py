"""The map of a head against the whole matrix in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from classlens.core import head_maps
from classlens.core.head_maps import head_map


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("scratch", [1, 100, 2**22])
@pytest.mark.parametrize("k", [1, 20, 10_000])
def test_the_largest_entries_are_those_of_the_whole_map(scratch: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small whole numbers, so that many entries are equal, exactly; in NumPy's words."""
    monkeypatch.setattr(head_maps, "_SCRATCH", scratch)
    embedding, value, output = drawn(37, 12).round(), drawn(4, 12, seed=1).round(), drawn(12, 4, seed=2).round()
    whole = np.array([[float(output @ (value @ row) @ column) for column in embedding] for row in embedding])
    entries = sorted((-whole[i, j], i, j) for i in range(37) for j in range(37))[:k]
    largest = head_map(embedding, value, output, k)
    assert largest.input_class.tolist() == [i for _, i, _ in entries]
    assert largest.output_class.tolist() == [j for _, _, j in entries]
    np.testing.assert_array_equal(largest.score.numpy(), [-score for score, _, _ in entries])
    others = whole - np.diag(np.full(37, np.inf))
    assert largest.copy_share == np.mean(np.diag(whole) > others.max(axis=1))


def test_a_head_that_copies() -> None:
    """Orthogonal classes through a rotation and back; and to the next class; and nowhere."""
    rotation, _ = torch.linalg.qr(drawn(16, 16))
    embedding = torch.linalg.qr(drawn(16, 16, seed=1))[0][:10]
    copying = head_map(embedding, rotation, rotation.T, k=10)
    assert copying.copy_share == 1
    assert sorted(copying.input_class.tolist()) == list(range(10))
    assert copying.input_class.equal(copying.output_class)
    step = torch.stack([torch.outer(embedding[(c + 1) % 10], embedding[c]) for c in range(10)]).sum(dim=0)
    shifting = head_map(embedding, rotation, step @ rotation.T, k=10)
    assert shifting.copy_share == 0
    assert shifting.output_class.equal((shifting.input_class + 1) % 10)
    nothing = head_map(embedding, torch.zeros(4, 16).double(), torch.zeros(16, 4).double(), k=3)
    assert nothing.copy_share == 0
    assert (nothing.input_class.tolist(), nothing.output_class.tolist()) == ([0, 0, 0], [0, 1, 2])
