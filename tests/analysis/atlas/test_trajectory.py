"""Decisions after each block, image by image."""

from __future__ import annotations

import numpy as np
import pytest

from tests.analysis.atlas.conftest import CLASSES, Case
from tests.analysis.atlas.literal import assert_mean, assert_share


def test_trajectories_are_those_of_the_images_of_a_label(case: Case) -> None:
    table = case.atlas["trajectory"]
    rank, logit, logsumexp = (case.clean(f"trajectory_{name}") for name in ("rank", "logit", "logsumexp"))
    rows = {(row["category"], row["depth"], row["group"]): row for row in table.to_dict("records")}
    wanted = {
        (category, depth, group)
        for category in range(CLASSES)
        for depth in range(rank.shape[1])
        for group in ("all", "right", "wrong")
        if case.of(category, group)
    }
    assert set(rows) == wanted
    for (category, depth, group), row in rows.items():
        images = case.of(category, group)
        assert row["images"] == len(images)
        assert_share(row, sum(int(rank[image, depth]) == 0 for image in images), len(images), "on_top")
        values = [float(logit[image, depth]) - float(logsumexp[image, depth]) for image in images]
        assert_mean(row, values, "log_probability", "log_probability_")
    assert np.isnan(rows[4, 0, "wrong"]["log_probability_low"]), "one image has no spread"
    assert rows[4, 0, "wrong"]["on_top_high"] - rows[4, 0, "wrong"]["on_top_low"] == pytest.approx(0.79, abs=0.01)
