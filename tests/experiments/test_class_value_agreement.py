"""Class-value agreement: means over classes, and the test against the twin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.experiments.stores import Made
from tests.experiments.twins import made_table

NAME = "class_value_agreement"


@pytest.mark.parametrize("twin", [True, False])
@pytest.mark.parametrize("classes", [8, 120])
def test_values(tmp_path: Path, twin: bool, classes: int) -> None:
    """Few classes are tested exactly, many by the normal approximation: by scipy, in both cases."""
    made = Made(classes=classes, twin_parameters=twin)
    table, written = made_table(tmp_path, made, NAME)
    agreement = written["parameters"]["class_value_agreement"].astype(float)
    weights = ["clean", "random_init"][: 1 + twin]
    assert len(table) == len(weights) * 2 * made.blocks
    for row in table.to_dict("records"):
        sublayer = ("attn", "mlp").index(row["sublayer"])
        values = agreement[weights.index(row["condition"]), sublayer, row["block"]]
        assert row["value"] == pytest.approx(sum(values) / classes, abs=1e-12)
        assert row["classes"] == classes
        assert row["low"] < row["value"] < row["high"]
        if twin and row["condition"] == "clean":
            other = agreement[1, sublayer, row["block"]]
            wanted = stats.wilcoxon(values, other, alternative="greater")
            assert row["p"] == pytest.approx(wanted.pvalue, rel=1e-9)
            assert row["effect"] == pytest.approx(2 * wanted.statistic / (classes * (classes + 1) / 2) - 1, abs=1e-12)
            assert row["p"] <= row["p_holm"] <= 1
        else:
            assert np.isnan([row["p"], row["effect"], row["p_holm"]]).all()
