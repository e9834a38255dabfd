"""All experiments on all stores: what comes out, and what is said to be missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

from classlens.core.stats import Statistics
from classlens.experiments.analyse import analyse
from classlens.experiments.registry import EXPERIMENTS
from tests.experiments.stores import Made, write_store
from tests.experiments.twins import QUICK, split_into_shards
from tests.refusals import refused

ALL = ("clean", "random_init", "self_only", "no_cls", "context_removed", "class_removed")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("stores")
    write_store(folder / "full.zarr", Made(masks=True, conditions=ALL, images=70, model="full"))
    write_store(folder / "bare.zarr", Made(conditions=("clean",), memories=False, prefix=(), model="bare", blocks=2))
    return [folder / "full.zarr", folder / "bare.zarr"]


def test_every_table_is_tidy(stores: list[Path]) -> None:
    found = analyse(stores, statistics=QUICK)
    assert list(found.tables) == list(EXPERIMENTS)
    for name, table in found.tables.items():
        keys = ["model", *EXPERIMENTS[name].keys, *(["block"] if "block" in table else [])]
        assert list(table.columns[: len(keys) - ("block" in table)]) == [key for key in keys if key != "block"]
        assert not table.duplicated(keys).any(), name
        assert table["value"].notna().all()
        known = table[table["low"].notna()]
        assert (known["low"] <= known["value"] + 1e-12).all()
        assert (known["value"] <= known["high"] + 1e-12).all()
        for column in (column for column in table if str(column).startswith("p")):
            p = table[column].dropna()
            assert ((p > 0) & (p <= 1)).all(), (name, column)


def test_what_is_missing_is_told_with_its_flag(stores: list[Path]) -> None:
    found = analyse(stores, statistics=QUICK)
    assert {one.model for one in found.missing} == {"bare"}, "the full store lacks nothing"
    whole = {one.experiment: one.reason for one in found.missing if one.whole}
    assert set(whole) == {
        "class_vs_context",
        "attention_edits",
        "context_removal",
        "class_value_agreement",
        "key_value_agreement",
        "agreement_by_class",
        "agreement_accuracy",
        "compositionality",
    }
    assert whole["attention_edits"].endswith("add --conditions self_only,no_cls")
    part = {(one.experiment, one.reason) for one in found.missing if not one.whole}
    assert ("building", "condition random_init was not measured: add --conditions random_init") in part
    assert ("evolution", "the model has no [CLS] token") in part
    assert not {experiment for experiment, _ in part} & set(whole)
    for name, table in found.tables.items():
        assert ("bare" in set(table["model"])) == (name not in whole)


def test_where_no_image_has_a_value_there_is_no_table(tmp_path: Path) -> None:
    """One block, and what it takes in was not measured."""
    write_store(tmp_path / "a.zarr", Made(blocks=1, embed=False, conditions=("clean",)))
    found = analyse(tmp_path / "a.zarr", experiments=["change_rate", "evolution"], statistics=QUICK)
    assert list(found.tables) == ["evolution"]
    assert ("change_rate", True, "no image has a value for it") in [one[1:] for one in found.missing]


def test_the_same_seed_gives_the_same_tables_in_any_parts(stores: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 5: the images may be read in one part or in many."""
    first = analyse(stores, statistics=QUICK)
    split_into_shards(monkeypatch)
    again = analyse(stores, statistics=QUICK)
    for name, table in first.tables.items():
        pd.testing.assert_frame_equal(again.tables[name], table, check_exact=True)
    other = analyse(stores, statistics=Statistics(seed=1, permutations=100, resamples=30))
    assert not other.tables["evolution"]["low"].equals(first.tables["evolution"]["low"])
    pd.testing.assert_series_equal(other.tables["evolution"]["value"], first.tables["evolution"]["value"])


def test_progress(stores: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    split_into_shards(monkeypatch)
    seen: list[tuple[str, int, int]] = []
    analyse(stores, experiments="evolution", statistics=QUICK, report=lambda *now: seen.append(now))
    assert seen == [("full", 0, 70), ("full", 64, 70), ("full", 70, 70), ("bare", 0, 12), ("bare", 12, 12)]


def test_some_experiments_in_the_order_of_the_table(stores: list[Path]) -> None:
    found = analyse(stores[0], experiments=["building", "evolution"], statistics=QUICK)
    assert list(found.tables) == ["evolution", "building"]
    alone = analyse(stores[0], experiments=["building"], statistics=QUICK)
    pd.testing.assert_frame_equal(alone.tables["building"], found.tables["building"])


def test_refusals(stores: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    refused(lambda: analyse([]), "no store was given")
    refused(lambda: analyse(stores, experiments=["evolutoin"]), "did you mean 'evolution'")
    refused(lambda: analyse(stores, experiments=[]), "no experiment was given")
    for how, says in (
        (Statistics(permutations=0), "permutations 0"),
        (Statistics(resamples=-1), "resamples -1"),
        (Statistics(confidence=1.0), "confidence 1.0"),
        (Statistics(seed=-3), "seed -3"),
    ):
        refused(lambda how=how: analyse(stores, statistics=how), says)  # type: ignore[misc]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused(lambda: analyse(stores), "analysis needs pyarrow", "pip install 'classlens[analysis]'")
