"""Outliers among norms, by hand."""

from __future__ import annotations

import torch

from classlens.core.norms import large_norms


def test_above_the_median_by_five_deviations() -> None:
    """Median 3, deviations 2 1 0 1 2 of the first five: MAD 1, so that 8 is not above the limit."""
    norms = torch.tensor(
        [[1.0, 2.0, 3.0, 4.0, 5.0, 8.0], [1.0, 2.0, 3.0, 4.0, 5.0, 8.1], [9.0, 9.0, 9.0, 9.0, 9.0, 9.5]]
    )
    among = torch.ones(3, 6, dtype=torch.bool)
    among[:, 5] = False
    assert large_norms(norms, among).nonzero().tolist() == [[1, 5], [2, 5]]
    # An even number: the median of 1 2 3 4 is 2.5, the MAD of 1.5 0.5 0.5 1.5 is 1.
    norms = torch.tensor([[1.0, 2.0, 3.0, 4.0, 7.5, 7.6, 100.0]])
    among = torch.arange(7)[None] < 4
    assert large_norms(norms, among).tolist() == [[False] * 5 + [True] * 2]
    assert large_norms(norms, among, factor=100.0).sum() == 0
    assert not large_norms(norms, torch.zeros(1, 7, dtype=torch.bool)).any(), "nothing to compare with"
