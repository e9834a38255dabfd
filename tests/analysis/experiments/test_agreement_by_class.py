"""Key-value agreement of each class by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from classlens.forward.agreement import BY, SUBLAYERS
from tests.analysis.literal import table_and_contents
from tests.analysis.stores import StoreSpec, Values

NAME = "agreement_by_class"


def test_values(tmp_path: Path) -> None:
    spec = StoreSpec(images=30, classes=40)
    table, written = table_and_contents(tmp_path, spec, NAME)
    target = written["clean"]["target"]
    present = set(target.tolist())
    assert set(table["category"]) == present, "a class without images has no row"
    assert len(table) == len(present) * len(BY) * 2 * spec.blocks
    for row in table.to_dict("records"):
        bits = written["clean"]["key_value_agreement"]
        bits = bits[:, BY.index(row["by"].removeprefix("by_")), SUBLAYERS.index(row["sublayer"]), row["block"]]
        shares = [sum(map(int, bits[image])) / 5 for image in range(spec.images) if target[image] == row["category"]]
        assert row["value"] == pytest.approx(sum(shares) / len(shares), abs=1e-12)
        assert row["images"] == len(shares)
        assert row["class_name"] == f"class {row['category']}"


def test_classes_and_names_in_order_and_only_of_the_model(tmp_path: Path) -> None:
    """Classes 1 and 3 of five, in any order of images; the twin, which agrees nowhere, has no part in it."""
    target = np.array([3, 1, 3, 3], dtype=np.int16)
    bits = np.zeros((4, 3, 2, 3, 5), dtype=np.int8)
    bits[0], bits[2, ..., :1], bits[1, ..., :2] = 1, 1, 1
    facts: Values = {"target": target, "key_value_agreement": bits}
    twin: Values = {"target": target, "key_value_agreement": np.zeros_like(bits)}
    spec = StoreSpec(images=4, facts={"clean": facts, "random_init": twin})
    table, _ = table_and_contents(tmp_path, spec, NAME)
    assert table["category"].unique().tolist() == [1, 3]
    rows = table.groupby("class_name")[["value", "images"]].agg(["min", "max"])
    # Shares of five tokens, averaged in float64.
    assert rows.loc["class 1"].tolist() == pytest.approx([2 / 5, 2 / 5, 1, 1], abs=1e-12)
    assert rows.loc["class 3"].tolist() == pytest.approx([(1 + 1 / 5 + 0) / 3] * 2 + [3, 3], abs=1e-12)


def test_its_mean_over_classes_is_the_rate_of_the_model(tmp_path: Path) -> None:
    spec = StoreSpec(images=30)
    table, _ = table_and_contents(tmp_path / "one", spec, NAME)
    whole, _ = table_and_contents(tmp_path / "other", spec, "key_value_agreement")
    keys = ["by", "sublayer", "block"]
    of_model = whole[whole["condition"] == "clean"].set_index(keys)["value"].to_dict()
    # Two ways to add up the same shares.
    assert table.groupby(keys)["value"].mean().to_dict() == pytest.approx(of_model, abs=1e-12)
