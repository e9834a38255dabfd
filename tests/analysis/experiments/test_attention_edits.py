"""Rates with attention cut, beside those of the same images without."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from tests.analysis.literal import assert_is_twin, positions, share, site_index, table_and_contents
from tests.analysis.stores import StoreSpec

NAME = "attention_edits"
CONDITIONS = ("clean", "self_only", "no_cls")


@pytest.mark.parametrize("conditions", [CONDITIONS, ("clean", "self_only")])
def test_values(tmp_path: Path, conditions: tuple[str, ...]) -> None:
    spec = StoreSpec(conditions=conditions, images=8, prefix=("cls", "reg0"))
    table, written = table_and_contents(tmp_path, spec, NAME)

    def twin(image: int, condition: str, counting: str, measure: str) -> float:
        if measure == "accuracy":
            return float(written[condition]["correct"][image])
        rank = written[condition]["rank"][image, site_index(spec, "resid_post"), spec.blocks - 1]
        tokens = positions(spec, "cls" if measure == "cls_identifiable" else "image")
        if counting == "reference" and condition != "clean":
            tokens = positions(spec, "cls") + tokens
        hits = [rank[token] == 0 for token in tokens]
        return float(any(hits)) if measure == "images_identifiable" else share(hits)

    assert_is_twin(table, spec, NAME, twin)
    assert set(table["condition"]) == set(conditions)
    for row in table.to_dict("records"):
        keys = {key: row[key] for key in ("counting", "measure")}
        if row["condition"] == "clean":
            assert np.isnan(row["change"])
            continue
        changes = [
            twin(image, condition=row["condition"], **keys) - twin(image, condition="clean", **keys)
            for image in range(spec.images)
        ]
        assert row["change"] == pytest.approx(np.mean(changes), abs=1e-12)
        assert row["change_low"] <= row["change"] <= row["change_high"]
        signs = product((-1, 1), repeat=spec.images)
        exact = np.mean([abs(np.dot(sign, changes)) >= abs(sum(changes)) - 1e-9 for sign in signs])
        # 100 permutations: four standard deviations of their share, and the one that is always added.
        assert row["p"] == pytest.approx(exact, abs=4 * np.sqrt(0.25 / 100) + 0.01)
        assert row["p"] > 0
