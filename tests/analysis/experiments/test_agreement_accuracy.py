"""Agreement of `[CLS]` in right and wrong images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from classlens.core.stats import Statistics
from classlens.forward.agreement import BY, SUBLAYERS
from tests.analysis.literal import table_and_contents
from tests.analysis.stores import StoreSpec

NAME = "agreement_accuracy"


def test_values_and_their_exact_test(tmp_path: Path) -> None:
    spec = StoreSpec(images=40, prefix=("reg0", "cls"))
    table, written = table_and_contents(tmp_path, spec, NAME, Statistics(permutations=4000, resamples=20))
    assert len(table) == 2 * 2 * 2 * spec.blocks
    facts = written["clean"]
    for row in table.to_dict("records"):
        bits = facts["key_value_agreement"]
        bits = bits[:, BY.index(row["by"].removeprefix("by_")), SUBLAYERS.index(row["sublayer"]), row["block"], 1]
        groups = {
            name: [int(bits[image]) for image in range(spec.images) if facts["correct"][image] == right]
            for name, right in (("correct", 1), ("wrong", 0))
        }
        agrees = groups[row["images_are"]]
        assert row["value"] == pytest.approx(sum(agrees) / len(agrees), abs=1e-12)
        assert row["images"] == len(agrees)
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
    table, _ = table_and_contents(tmp_path, StoreSpec(facts={"clean": {"correct": correct}}), NAME)
    assert set(table["images_are"]) == {"correct"}
    assert table[["difference", "p", "p_holm"]].isna().all(axis=None)


def test_by_hand(tmp_path: Path) -> None:
    """Three right images, three wrong ones and two without a label, which count for neither; one block of each kind."""
    correct = np.array([1, 0, 1, -1, 0, 1, -1, 0], dtype=np.int8)
    bits = np.zeros((8, 3, 2, 3, 5), dtype=np.int8)
    bits[:, :, :, 0, 0] = (correct == 1)[:, None, None]  # right images alone
    bits[:, :, :, 1, 0] = (correct == 0)[:, None, None]  # wrong images alone
    bits[:, :, :, 2, 0] = 1
    bits[:, :, :, :, 1:] = 1 - bits[:, :, :, :, :1]  # image tokens are not asked
    spec = StoreSpec(
        images=8, conditions=("clean",), facts={"clean": {"correct": correct, "key_value_agreement": bits}}
    )
    table, _ = table_and_contents(tmp_path, spec, NAME, Statistics(permutations=4000, resamples=20))
    assert set(table["images"]) == {3}
    for _, rows in table.groupby(["by", "sublayer"]):
        right, wrong = (rows[rows["images_are"] == kind] for kind in ("correct", "wrong"))
        assert right["value"].tolist() == [1, 0, 1]
        assert wrong["value"].tolist() == [0, 1, 1]
        assert right["difference"].tolist() == [1, -1, 0]
        # All three that agree are right ones in 1 of 20 choices; four standard deviations of 4,000 draws.
        assert right["p"].iloc[0] == pytest.approx(1 / 20, abs=4 * np.sqrt(0.05 * 0.95 / 4000) + 1 / 4001)
        assert right["p"].tolist()[1:] == [1, 1]
        # Three blocks are one family.
        assert right["p_holm"].tolist() == [3 * right["p"].iloc[0], 1, 1]
        assert wrong[["difference", "p", "p_holm"]].isna().all(axis=None)
