"""Identifiability block by block, and its tests against the random twin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.analysis.literal import (
    assert_is_twin,
    numbers,
    positions,
    share,
    site_index,
    split_into_shards,
    table_and_contents,
)
from tests.analysis.stores import StoreSpec

NAME = "evolution"


@pytest.mark.parametrize("prefix", [("cls",), (), ("cls", "reg0")])
def test_values(tmp_path: Path, prefix: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    split_into_shards(monkeypatch)
    spec = StoreSpec(prefix=prefix, images=70)
    table, written = table_and_contents(tmp_path, spec, NAME)

    def twin(image: int, block: int, condition: str, tokens: str, measure: str) -> float:
        rank = written[condition]["rank"][image, site_index(spec, "resid_post"), block]
        chosen = [int(rank[token]) for token in positions(spec, tokens)]
        if measure == "identifiability":
            return sum(1 - rank / spec.classes for rank in chosen) / len(chosen)
        return share([rank == 0 for rank in chosen])

    assert_is_twin(table, spec, NAME, twin)
    assert set(table["tokens"]) == ({"cls", "image"} if prefix else {"image"})


def test_the_tests_are_those_of_scipy(tmp_path: Path) -> None:
    spec = StoreSpec(images=60, classes=9, seed=4)
    table, written = table_and_contents(tmp_path, spec, NAME)
    post = site_index(spec, "resid_post")
    model, twin = (written[name]["rank"][:, post].astype(float) for name in ("clean", "random_init"))
    for tokens in ("cls", "image"):
        rows = table.query("condition == 'clean' and tokens == @tokens and measure == 'identifiability'")
        chosen = positions(spec, tokens)
        better = (twin - model)[:, :, chosen]
        for block, row in zip(range(spec.blocks), rows.to_dict("records"), strict=True):
            # Sums of integers have the same order, ties and signs as their means.
            sums = better[:, block].sum(axis=1)
            wanted = stats.wilcoxon(sums[sums != 0], alternative="greater")
            assert row["p"] == pytest.approx(wanted.pvalue, rel=1e-9)
            differences = better[:, block].ravel()
            over_tokens = stats.wilcoxon(differences, alternative="greater", method="asymptotic")
            assert row["p_tokens"] == pytest.approx(over_tokens.pvalue, rel=1e-9)
            count = (differences != 0).sum()
            effect = 2 * over_tokens.statistic / (count * (count + 1) / 2) - 1
            assert row["effect_tokens"] == pytest.approx(effect, abs=1e-12)
        holm = sorted(rows["p"])
        assert min(rows["p_holm"]) == pytest.approx(min(1.0, holm[0] * len(holm)))
    assert table.query("condition == 'random_init' or measure == 'share_on_top'")["p"].isna().all()


def test_an_effect_of_known_size(tmp_path: Path) -> None:
    """Every token of the model is ahead of its twin in block 0, behind in block 1, and level in block 2."""
    model, twin = (np.full((80, 4, 3, 5), 2, dtype=np.int16) for _ in range(2))
    model[:, 3, 0], model[:, 3, 1] = 0, 4
    spec = StoreSpec(images=80, facts={"clean": {"rank": model}, "random_init": {"rank": twin}})
    table, _ = table_and_contents(tmp_path, spec, NAME)
    rows = table.query("condition == 'clean' and tokens == 'image' and measure == 'identifiability'")
    assert rows["value"].tolist() == pytest.approx([1.0, 0.2, 0.6])
    for effect in ("effect", "effect_tokens"):
        assert rows[effect].tolist() == [1, -1, 0]
    first, second, third = numbers(rows["p"])
    assert first < 1e-12
    assert second > 1 - 1e-12
    assert third == 1


def test_without_a_twin_there_are_no_tests(tmp_path: Path) -> None:
    table, _ = table_and_contents(tmp_path, StoreSpec(conditions=("clean",)), NAME)
    assert table[["p", "effect", "p_tokens", "p_holm"]].isna().all(axis=None)
    assert set(table["condition"]) == {"clean"}
