"""Areas below curves, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from classlens.tasks.evaluation.curves import trapezoid


def test_area_of_trapezoids() -> None:
    x = np.array([0.0, 0.5, 0.75])
    # Two trapezoids, divided by the span.
    assert trapezoid(x)(np.array([[1.0, 0.5, 0.1]]))[0] == pytest.approx((0.5 * 0.75 + 0.25 * 0.3) / 0.75)
    assert trapezoid(x)(np.full((1, 3), 0.4))[0] == pytest.approx(0.4)
    assert trapezoid(np.array([0.0]))(np.array([[0.7]]))[0] == pytest.approx(0.7)
