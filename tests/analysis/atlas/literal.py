"""Intervals by SciPy, for tests that go row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp


def assert_mean(row: Any, values: Sequence[float], name: str, prefix: str = "") -> None:
    """A row has the mean of these values and the interval of SciPy's t test. Sums are in float64."""
    assert row[name] == pytest.approx(np.mean(values), abs=1e-9)
    if len(values) < 2:
        assert np.isnan(row[f"{prefix}low"])
        assert np.isnan(row[f"{prefix}high"])
        return
    low, high = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (row[f"{prefix}low"], row[f"{prefix}high"]) == pytest.approx((low, high), abs=1e-9)


def assert_share(row: Any, hits: int, trials: int, name: str) -> None:
    """A row has this share and Wilson's interval."""
    if not trials:
        assert np.isnan([row[name], row[f"{name}_low"], row[f"{name}_high"]]).all()
        return
    interval = binomtest(hits, trials).proportion_ci(0.95, method="wilson")
    assert row[name] == pytest.approx(hits / trials, abs=1e-12)
    assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx((interval.low, interval.high), abs=1e-12)
