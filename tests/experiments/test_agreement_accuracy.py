"""Agreement of `[CLS]` in right and wrong images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from classlens.core.stats import Statistics
from classlens.hooks.reducing import BY, SUBLAYERS
from tests.experiments.stores import Made
from tests.experiments.twins import made_table

NAME = "agreement_accuracy"


def test_values_and_their_exact_test(tmp_path: Path) -> None:
    made = Made(images=40, prefix=("reg0", "cls"))
    table, written = made_table(tmp_path, made, NAME, Statistics(permutations=4000, resamples=20))
    assert len(table) == 2 * 2 * 2 * made.blocks
    facts = written["clean"]
    for row in table.to_dict("records"):
        bits = facts["key_value_agreement"]
        bits = bits[:, BY.index(row["by"].removeprefix("by_")), SUBLAYERS.index(row["sublayer"]), row["block"], 1]
        groups = {
            name: [int(bits[image]) for image in range(made.images) if facts["correct"][image] == right]
            for name, right in (("correct", 1), ("wrong", 0))
        }
        own = groups[row["images_are"]]
        assert row["value"] == pytest.approx(sum(own) / len(own), abs=1e-12)
        assert row["images"] == len(own)
        if row["images_are"] == "wrong":
            assert np.isnan(row["p"])
            continue
        assert row["difference"] == pytest.approx(np.mean(groups["correct"]) - np.mean(groups["wrong"]), abs=1e-12)
        counts = [[sum(groups[name]), len(groups[name]) - sum(groups[name])] for name in ("correct", "wrong")]
        exact = stats.fisher_exact(counts, alternative="greater").pvalue
        # Four standard deviations of a share of 4,000 permutations.
        assert row["p"] == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 4000) + 1 / 2000)
        assert 0 < row["p"] <= row["p_holm"] <= 1


def test_where_no_image_is_wrong(tmp_path: Path) -> None:
    correct = np.ones(12, dtype=np.int8)
    table, _ = made_table(tmp_path, Made(facts={"clean": {"correct": correct}}), NAME)
    assert set(table["images_are"]) == {"correct"}
    assert table[["difference", "p", "p_holm"]].isna().all(axis=None)
