"""Key-value agreement of each class by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from classlens.hooks.reducing import BY, SUBLAYERS
from tests.experiments.stores import Made
from tests.experiments.twins import made_table

NAME = "agreement_by_class"


def test_values(tmp_path: Path) -> None:
    made = Made(images=30, classes=40)
    table, written = made_table(tmp_path, made, NAME)
    target = written["clean"]["target"]
    present = set(target.tolist())
    assert set(table["category"]) == present, "a class without images has no row"
    assert len(table) == len(present) * len(BY) * 2 * made.blocks
    for row in table.to_dict("records"):
        bits = written["clean"]["key_value_agreement"]
        bits = bits[:, BY.index(row["by"].removeprefix("by_")), SUBLAYERS.index(row["sublayer"]), row["block"]]
        own = [sum(map(int, bits[image])) / 5 for image in range(made.images) if target[image] == row["category"]]
        assert row["value"] == pytest.approx(sum(own) / len(own), abs=1e-12)
        assert row["images"] == len(own)
        assert row["class_name"] == f"class {row['category']}"
