"""Class-value agreement: means over classes, and the test against the twin."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.analysis.literal import table_and_contents
from tests.analysis.stores import StoreSpec

NAME = "class_value_agreement"


@pytest.mark.parametrize(("twin", "classes"), [(True, 8), (True, 120), (False, 8)])
def test_values(tmp_path: Path, twin: bool, classes: int) -> None:
    """Few classes are tested exactly, many by the normal approximation: by scipy, in both cases."""
    spec = StoreSpec(classes=classes, twin_parameters=twin)
    table, written = table_and_contents(tmp_path, spec, NAME)
    agreement = written["parameters"]["class_value_agreement"].astype(float)
    weights = ["clean", "random_init"][: 1 + twin]
    assert len(table) == len(weights) * 2 * spec.blocks
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


def test_corrections_go_over_the_blocks_of_a_sublayer(tmp_path: Path) -> None:
    """Five classes, all closer than in the twin: p = 1/32 exactly. In block 1 of attention all are farther: p = 1."""
    agreement = np.full((2, 2, 3, 5), 0.25)
    agreement[0] += np.arange(1, 6) / 100
    agreement[0, 0, 1] = 0.25 - np.arange(1, 6) / 100
    table, _ = table_and_contents(tmp_path, StoreSpec(parameters={"class_value_agreement": agreement}), NAME)
    rows = table[table["condition"] == "clean"].set_index(["sublayer", "block"])
    assert rows["p"].tolist() == [1 / 32, 1, 1 / 32, 1 / 32, 1 / 32, 1 / 32]
    assert rows["effect"].tolist() == [1, -1, 1, 1, 1, 1]
    # Holm: of three blocks the least p counts three times, the next twice, and none less than one before it.
    assert rows["p_holm"].tolist() == [3 / 32, 1, 3 / 32, 3 / 32, 3 / 32, 3 / 32]


def test_a_model_that_is_its_twin_has_no_effect(tmp_path: Path) -> None:
    agreement = np.full((2, 2, 3, 5), 0.5)
    table, _ = table_and_contents(tmp_path, StoreSpec(parameters={"class_value_agreement": agreement}), NAME)
    rows = table[table["condition"] == "clean"]
    assert set(rows["p"]) == {1.0}
    assert set(rows["effect"]) == {0.0}
    assert (table[["low", "value", "high"]] == 0.5).all(axis=None)


def test_all_pairs_of_signs_enumerated(tmp_path: Path) -> None:
    """The share of all choices of signs whose ranks above 0 add up to as much: the definition of the exact test."""
    spec = StoreSpec(classes=6, blocks=2)
    table, written = table_and_contents(tmp_path, spec, NAME)
    agreement = written["parameters"]["class_value_agreement"].astype(float)
    for row in table[table["condition"] == "clean"].to_dict("records"):
        sublayer = ("attn", "mlp").index(row["sublayer"])
        differences = agreement[0, sublayer, row["block"]] - agreement[1, sublayer, row["block"]]
        ranks = [1 + sum(abs(other) < abs(value) for other in differences) for value in differences]
        above = sum(rank for rank, value in zip(ranks, differences, strict=True) if value > 0)
        sums = [
            sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign) for signs in product((0, 1), repeat=6)
        ]
        assert row["p"] == pytest.approx(sum(value >= above for value in sums) / 2**6, abs=1e-12)
        assert row["effect"] == pytest.approx((above - (21 - above)) / 21, abs=1e-12)
