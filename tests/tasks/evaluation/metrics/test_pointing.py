"""The grid pointing game: shares of positive importance, and intervals over mosaics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from classlens.core.stats import Statistics
from classlens.tasks.evaluation.metrics.pointing import Pointing
from classlens.tasks.evaluation.mosaics import mosaic
from tests import zoo
from tests.tasks.evaluation.batches import GivenImportance, batch_of, lens_of, method_of


def test_share_of_positive_importance() -> None:
    """A model on mosaics at twice its size, compared with sums over the grid."""
    lens = lens_of("cls_dynamic")
    pixels = zoo.pixels("cls_dynamic", 8)  # 2 × 4 tokens each, 4 × 8 in a mosaic
    target = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7])
    large = mosaic(pixels, double=True)
    share = Pointing().measure(batch_of(lens, large, target), method_of("class_gradient"))["share"]
    trace = lens.trace(large)
    for image in range(8):
        values = trace.explain(image, method="class_gradient").sum(("block", "head")).values[image // 4].reshape(4, 8)
        positive = np.maximum(values, 0)
        top, left = 2 * (image % 4 // 2), 4 * (image % 2)
        assert share[image] == pytest.approx(positive[top : top + 2, left : left + 4].sum() / positive.sum(), rel=1e-6)


def test_a_map_without_positive_values() -> None:
    lens, pixels = lens_of("cls_dynamic"), zoo.pixels("cls_dynamic", 1)
    negative = GivenImportance(-torch.ones(1, 8, dtype=torch.float64))
    assert Pointing().measure(batch_of(lens, pixels, torch.arange(4)), negative)["share"].tolist() == [0] * 4


def test_intervals_are_over_mosaics() -> None:
    """The four images of a mosaic are one draw, not four."""
    share = np.repeat([0.0, 1.0], 4 * 50)
    data = xr.Dataset({"share": ("image", share)})
    (score,) = Pointing().scores(data, Statistics(resamples=2_000))
    assert score.value == 0.5
    assert score.images == 400
    # A hundred draws of 0 or 1: a standard error of 0.05.
    assert score.high - score.low == pytest.approx(4 * 0.05 * 0.98, abs=0.03)


def test_a_store_of_ranks_has_no_maps_of_mosaics() -> None:
    assert Pointing().applies_to(method_of("rollout"))
    assert not Pointing().applies_to(GivenImportance(torch.zeros(1, 8), live=False))
