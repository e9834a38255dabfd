"""All experiments on all stores: what comes out, and what is said to be missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

from classlens.analysis.analyze import AnalyzeResult, analyze
from classlens.analysis.registry import EXPERIMENTS
from classlens.core.stats import Statistics
from classlens.tasks.tokens.conditions.registry import decoder_conditions
from tests.analysis.literal import QUICK, split_into_shards
from tests.analysis.stores import StoreSpec, write_store
from tests.refusals import refused

ALL = ("clean", "random_init", "self_only", "no_cls", "context_removed", "class_removed", "outliers_removed")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("stores")
    write_store(
        folder / "full.zarr", StoreSpec(masks=True, conditions=(*ALL, *decoder_conditions()), images=70, model="full")
    )
    write_store(
        folder / "bare.zarr", StoreSpec(conditions=("clean",), memories=False, prefix=(), model="bare", blocks=2)
    )
    return [folder / "full.zarr", folder / "bare.zarr"]


@pytest.fixture(scope="module")
def result(stores: list[Path]) -> AnalyzeResult:
    return analyze(stores, statistics=QUICK)


def test_every_table_is_tidy(result: AnalyzeResult) -> None:
    assert list(result.tables) == list(EXPERIMENTS)
    for name, table in result.tables.items():
        keys = ["model", *EXPERIMENTS[name].keys, *(["block"] if "block" in table else [])]
        assert list(table.columns[: len(keys) - ("block" in table)]) == [key for key in keys if key != "block"]
        assert not table.duplicated(keys).any(), name
        assert table["value"].notna().all()
        known = table[table["low"].notna()]
        assert (known["low"] <= known["value"] + 1e-12).all()
        assert (known["value"] <= known["high"] + 1e-12).all()
        for column in (column for column in table if column == "p" or str(column).startswith("p_")):
            p = table[column].dropna()
            assert ((p > 0) & (p <= 1)).all(), (name, column)


def test_what_is_missing_is_named_with_its_flag(result: AnalyzeResult) -> None:
    assert {missing.model for missing in result.missing} == {"bare"}, "the full store lacks nothing"
    whole = {missing.experiment: missing.reason for missing in result.missing if missing.whole}
    assert set(whole) == {
        "class_vs_context",
        "attention_edits",
        "context_removal",
        "class_value_agreement",
        "key_value_agreement",
        "agreement_by_class",
        "agreement_accuracy",
        "compositionality",
        "decoders",
    }
    assert whole["attention_edits"].endswith("add --conditions self_only,no_cls")
    part = {(missing.experiment, missing.reason) for missing in result.missing if not missing.whole}
    assert ("building", "condition random_init was not measured: add --conditions random_init") in part
    assert ("evolution", "the model has no [CLS] token") in part
    assert not {experiment for experiment, _ in part} & set(whole)
    for name, table in result.tables.items():
        assert ("bare" in set(table["model"])) == (name not in whole)


def test_all_that_three_stores_lack(tmp_path: Path) -> None:
    """Each experiment is named once for what it cannot do without, else for each part; stores in their order."""
    write_store(tmp_path / "a.zarr", StoreSpec(model="no twin", conditions=("clean", "no_cls"), twin_parameters=False))
    write_store(tmp_path / "b.zarr", StoreSpec(model="no masks", embed=False, labels=False))
    sites = ("attn_out", "mlp_out", "resid_post")
    spec = StoreSpec(model="parallel", masks=True, sites=sites, memories=False, conditions=(*ALL[:2], "class_removed"))
    write_store(tmp_path / "c.zarr", spec)
    result = analyze([tmp_path / f"{name}.zarr" for name in "abc"], statistics=QUICK)
    add = "condition {0} was not measured: add --conditions {0}".format
    neither = "neither condition {} nor {} was measured: add --conditions {},{}".format
    twin, removed = add("random_init"), neither(*ALL[4:6], *ALL[4:6])
    masks = "the images have no masks: measure them with --masks, or data that has masks, such as imagenet-s:ROOT"
    labels = "the images have no labels: measure a data set that has them"
    readings = (
        "neither condition tuned_lens nor probe nor probe_pooled nor probe_logistic was measured: add --conditions "
    )
    readings += "tuned_lens,probe,probe_pooled,probe_logistic"
    embed = "site embed was not measured: measure anew with --sites that name it, or without --sites"
    memories = "memories were not measured: measure anew with --memories"
    parameters = "the random twin's parameters were not measured: measure a model by its name with --memories"
    assert [tuple(missing) for missing in result.missing] == [
        ("no twin", "identifiability", False, twin),
        ("no twin", "evolution", False, twin),
        ("no twin", "change_rate", False, twin),
        ("no twin", "class_vs_context", True, masks),
        ("no twin", "attention_edits", False, add("self_only")),
        ("no twin", "context_removal", True, masks),
        ("no twin", "context_removal", True, removed),
        ("no twin", "building", False, twin),
        ("no twin", "composition", False, twin),
        ("no twin", "class_value_agreement", False, parameters),
        ("no twin", "key_value_agreement", False, twin),
        ("no twin", "compositionality", False, twin),
        ("no twin", "decoders", True, readings),
        *(("no twin", name, False, twin) for name in ("decision", "saturation", "dynamics", "stability", "norms")),
        ("no twin", "outliers", False, add("outliers_removed")),
        ("no masks", "identifiability", False, labels),
        ("no masks", "change_rate", False, embed),
        ("no masks", "class_vs_context", True, masks),
        ("no masks", "attention_edits", True, neither("self_only", "no_cls", "self_only", "no_cls")),
        ("no masks", "context_removal", True, masks),
        ("no masks", "context_removal", True, removed),
        ("no masks", "building", False, embed),
        ("no masks", "composition", False, embed),
        ("no masks", "agreement_accuracy", True, labels),
        ("no masks", "decoders", True, readings),
        *(("no masks", name, False, labels) for name in ("decision", "dynamics", "stability")),
        ("no masks", "outliers", False, add("outliers_removed")),
        ("no masks", "outliers", False, labels),
        ("parallel", "attention_edits", True, neither("self_only", "no_cls", "self_only", "no_cls")),
        ("parallel", "context_removal", False, add("context_removed")),
        ("parallel", "building", False, "blocks with parallel branches have no resid_mid"),
        ("parallel", "class_value_agreement", True, "the parameters were not measured: measure anew with --memories"),
        ("parallel", "key_value_agreement", True, memories),
        ("parallel", "agreement_by_class", True, memories),
        ("parallel", "agreement_accuracy", True, memories),
        ("parallel", "compositionality", True, memories),
        ("parallel", "decoders", True, readings),
        ("parallel", "outliers", False, add("outliers_removed")),
    ]
    assert list(result.tables) == [name for name in EXPERIMENTS if name != "decoders"]
    assert set(result.tables["context_removal"]["condition"]) == {"class_removed"}


def test_models_are_compared_where_there_are_two(stores: list[Path]) -> None:
    result = analyze(stores[0], experiments=["mean_evolution"], statistics=QUICK)
    assert result.tables == {}
    wanted = ("full", "mean_evolution", True, "models are compared: give two stores or more")
    assert [tuple(missing) for missing in result.missing] == [wanted]


def test_what_the_tables_were_made_from(tmp_path: Path) -> None:
    measured = {"clean": [1] * 9 + [2, 0, 0]}
    write_store(tmp_path / "a.zarr", StoreSpec(model="vit", conditions=("clean", "no_cls"), measured=measured))
    write_store(tmp_path / "b.zarr", StoreSpec(model="vit"))
    result = analyze([tmp_path / "a.zarr", str(tmp_path / "b.zarr")], experiments=["identifiability"], statistics=QUICK)
    about = result.stores[0]
    assert {key: about[key] for key in ("model", "name", "store", "images", "images_of_all", "blocks")} == {
        "model": "vit (a)",
        "name": "vit",
        "store": "a",
        "images": 9,
        "images_of_all": 12,
        "blocks": 3,
    }
    assert [store["conditions"] for store in result.stores] == [["clean", "no_cls"], ["clean", "random_init"]]
    assert result.tables["identifiability"]["model"].unique().tolist() == ["vit (a)", "vit (b)"]
    assert result.statistics == QUICK


def test_where_no_image_has_a_value_there_is_no_table(tmp_path: Path) -> None:
    """One block, whose input was not measured."""
    write_store(tmp_path / "a.zarr", StoreSpec(blocks=1, embed=False, conditions=("clean",)))
    result = analyze(tmp_path / "a.zarr", experiments=["change_rate", "evolution"], statistics=QUICK)
    assert list(result.tables) == ["evolution"]
    assert ("change_rate", True, "no image has a value for it") in [missing[1:] for missing in result.missing]


def test_the_same_seed_gives_the_same_tables_in_any_batches(
    stores: list[Path], result: AnalyzeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 5: the images may come in one batch or in many."""
    split_into_shards(monkeypatch)
    again = analyze(stores, statistics=QUICK)
    for name, table in result.tables.items():
        pd.testing.assert_frame_equal(again.tables[name], table, check_exact=True)
    other = analyze(stores, experiments="evolution", statistics=Statistics(seed=1, permutations=100, resamples=30))
    evolution, other_evolution = (tables["evolution"] for tables in (result.tables, other.tables))
    assert not other_evolution["low"].equals(evolution["low"])
    pd.testing.assert_series_equal(other_evolution["value"], evolution["value"])


def test_progress(stores: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    split_into_shards(monkeypatch)
    reports: list[tuple[str, int, int]] = []
    analyze(stores, experiments="evolution", statistics=QUICK, report=lambda *progress: reports.append(progress))
    assert reports == [("full", 0, 70), ("full", 64, 70), ("full", 70, 70), ("bare", 0, 12), ("bare", 12, 12)]


def test_some_experiments_in_the_order_of_the_registry(stores: list[Path], result: AnalyzeResult) -> None:
    chosen = analyze(stores, experiments=["building", "change_rate"], statistics=QUICK)
    assert list(chosen.tables) == ["change_rate", "building"]
    pd.testing.assert_frame_equal(chosen.tables["building"], result.tables["building"])


def test_refusals(stores: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    refused(lambda: analyze([]), "no store was given")
    refused(lambda: analyze(stores, experiments=["evolutoin"]), "did you mean 'evolution'")
    refused(lambda: analyze(stores, experiments=[]), "no experiments were given")
    refused(lambda: Statistics(permutations=0), "permutations 0")
    refused(lambda: Statistics(resamples=-1), "resamples -1")
    refused(lambda: Statistics(confidence=0.0), "confidence 0.0")
    refused(lambda: Statistics(confidence=1.0), "confidence 1.0")
    refused(lambda: Statistics(seed=-3), "seed -3")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused(lambda: analyze(stores), "analyze needs pyarrow", "pip install 'classlens[analysis]'")
