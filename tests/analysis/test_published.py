"""Published values beside measured ones."""

from __future__ import annotations

from dataclasses import replace
from math import isnan
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from classlens.analysis.analyze import AnalyzeResult, analyze
from classlens.analysis.published import PROBE_METHOD, REMOVAL, REMOVAL_METHODS, Comparison, compare, published
from classlens.analysis.registry import EXPERIMENTS
from classlens.core.stats import Statistics
from classlens.models.paper import MODELS
from tests.analysis.stores import StoreSpec, Values, write_store

QUICK = Statistics(permutations=20, resamples=20)
ALL = ("clean", "random_init", "self_only", "no_cls", "context_removed", "class_removed")
B32 = "paper:vit-b-32"
SPEC = StoreSpec(model=B32, masks=True, conditions=ALL, images=16)


def by_label(comparisons: list[Comparison], model: str = B32) -> dict[str, Comparison]:
    return {comparison.published.label: comparison for comparison in comparisons if comparison.published.model == model}


def analyzed(store: Path) -> AnalyzeResult:
    names = {value.experiment for value in published()} - {REMOVAL}
    return analyze(store, experiments=names, statistics=QUICK)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[AnalyzeResult, dict[str, Values]]:
    path = tmp_path_factory.mktemp("store") / "a.zarr"
    written = write_store(path, SPEC)
    return analyzed(path), written


def test_the_list() -> None:
    """Seven models with three rates, two random twins with two, six of edits, eight areas."""
    values = list(published())
    assert len(values) == 7 * 3 + 2 * 2 + 6 + 8
    assert {value.model for value in values} == set(MODELS)
    assert all(0 < value.value < 1 for value in values)
    for value in values:
        if value.experiment == REMOVAL:
            assert value.row["method"] in REMOVAL_METHODS
        else:
            assert set(value.row) == set(EXPERIMENTS[value.experiment].keys)
    accuracy = {value.model: value.value for value in values if value.label == "top-1 accuracy"}
    assert accuracy["paper:vit-b-16-miil"] == pytest.approx(0.8626)


def test_each_value_is_counted_as_published(measured: tuple[AnalyzeResult, dict[str, Values]]) -> None:
    analysis, written = measured
    comparisons = compare(analysis)
    values = {label: comparison.value for label, comparison in by_label(comparisons).items()}

    def rank(condition: str) -> np.ndarray:
        return np.asarray(written[condition]["rank"][:, SPEC.sites.index("resid_post"), -1])

    assert values["tokens identifiable"] == pytest.approx((rank("clean")[:, 1:] == 0).mean())
    assert values["top-1 accuracy"] == pytest.approx(written["clean"]["correct"].mean())
    twin = values["random twin: images with at least one"]
    assert twin == pytest.approx((rank("random_init")[:, 1:] == 0).any(axis=1).mean())
    # Edited rates include [CLS].
    assert values["image tokens see themselves alone: tokens identifiable"] == pytest.approx(
        (rank("self_only") == 0).mean()
    )
    shares = [
        (ranks[kept == 1] == 0).mean()
        for ranks, kept in zip(rank("context_removed"), written["context_removed"]["kept"], strict=True)
    ]
    assert values["context removed: tokens identifiable"] == pytest.approx(np.mean(shares))
    kept = written["class_removed"]["kept"][:, 1:] == 1
    (unedited,) = [
        comparison
        for comparison in comparisons
        if comparison.published.row.get("condition") == "class_removed"
        and comparison.published.row["tokens_are"] == "unedited"
    ]
    assert unedited.value == pytest.approx((rank("clean")[:, 1:][kept] == 0).mean())
    assert unedited.published.value == pytest.approx(0.5624)


def test_a_model_is_found_by_the_name_that_timm_gives_its_weights(
    measured: tuple[AnalyzeResult, dict[str, Values]],
) -> None:
    analysis, _ = measured
    (store,) = analysis.stores
    renamed = replace(analysis, stores=[{**store, "name": "vit_base_patch32_224.augreg_in21k_ft_in1k"}])
    measurements = [
        [(comparison.value, comparison.images) for comparison in compare(result) if not isnan(comparison.value)]
        for result in (analysis, renamed)
    ]
    assert measurements[0] == measurements[1]
    assert len(measurements[0]) == 3 + 2 + 6


def test_without_cls_the_first_image_token_is_left_out(tmp_path: Path) -> None:
    spec = StoreSpec(model="paper:vit-b-16-gap", prefix=(), images=10)
    written = write_store(tmp_path / "a.zarr", spec)
    rank = written["clean"]["rank"][:, spec.sites.index("resid_post"), -1]
    values = by_label(compare(analyzed(tmp_path / "a.zarr")), "paper:vit-b-16-gap")
    assert values["tokens identifiable"].value == pytest.approx((rank[:, 1:] == 0).mean())


def test_why_there_is_no_value(tmp_path: Path) -> None:
    write_store(tmp_path / "a.zarr", StoreSpec(model=B32, conditions=("clean", "no_cls"), images=4))
    analysis = analyzed(tmp_path / "a.zarr")
    comparisons = compare(analysis, {"paper:vit-l-16": "no network"})
    values = by_label(comparisons)
    assert not isnan(values["image tokens do not see [CLS]: tokens identifiable"].value)
    reasons = {label: comparison.reason for label, comparison in values.items() if isnan(comparison.value)}
    assert reasons["image tokens see themselves alone: tokens identifiable"].endswith("add --conditions self_only")
    assert reasons["random twin: tokens identifiable"].endswith("add --conditions random_init")
    assert "have no masks" in reasons["class removed: tokens identifiable"]
    assert {comparison.reason for comparison in by_label(comparisons, "paper:vit-l-16").values()} == {"no network"}
    assert {comparison.reason for comparison in by_label(comparisons, "paper:vit-b-16").values()} == {
        "add --models paper:vit-b-16"
    }
    other = analyze(tmp_path / "a.zarr", statistics=QUICK, experiments=["evolution"])
    assert "the analysis has no identifiability" in by_label(compare(other))["tokens identifiable"].reason


def test_token_removal_from_the_scores_of_evaluate(measured: tuple[AnalyzeResult, dict[str, Values]]) -> None:
    analysis, _ = measured

    def removal(method: str, order: str, scores: pd.DataFrame | None = None) -> Comparison:
        comparisons = compare(analysis, removal=None if scores is None else {B32: scores})
        return by_label(comparisons)[f"token removal, {method}, {order}: area under the curve"]

    train = f"run `classlens probe` with these images as --test, and add --removal --ranks {B32}=STORE"
    assert removal("Chefer", "negative").reason == f"add --removal and --models {B32}"
    assert removal("linear probe", "negative").reason == train
    rows = [
        ("chefer", "positive_auc_reference", 0.4),
        ("chefer", "negative_auc_reference", 0.8),
        ("class_gradient:loss=double_softmax", "negative_auc_reference", 0.7),
        ("class_gradient", "negative_auc_reference", 0.6),
        ("chefer", "negative_auc", 0.5),
    ]
    scores = pd.DataFrame(rows, columns=["method", "measure", "value"]).assign(metric="removal", low=0.1, high=0.9)
    assert removal("Chefer", "negative", scores).value == 0.8
    assert removal("Chefer", "positive", scores).value == 0.4
    assert removal("class gradient", "negative", scores).value == 0.7
    assert removal("random", "negative", scores).reason == "no image has such a value"
    assert removal("linear probe", "negative", scores).reason == train
    scores = pd.concat([scores, scores.iloc[[1]].assign(method=PROBE_METHOD, value=0.75)])
    assert removal("linear probe", "negative", scores).value == 0.75
    assert removal("linear probe", "positive", scores).reason == "no image has such a value"
