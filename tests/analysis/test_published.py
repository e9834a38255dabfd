"""Published values beside measured ones."""

from __future__ import annotations

from math import isnan
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from classlens.analysis.analyze import analyze
from classlens.analysis.published import Compared, compare, published
from classlens.analysis.registry import EXPERIMENTS
from classlens.core.stats import Statistics
from classlens.models.paper import MODELS
from tests.analysis.stores import Made, write_store

QUICK = Statistics(permutations=20, resamples=20)
ALL = ("clean", "random_init", "self_only", "no_cls", "context_removed", "class_removed")


def by_name(found: list[Compared], model: str = "paper:vit-b-32") -> dict[str, Compared]:
    return {one.published.what: one for one in found if one.published.model == model}


def test_the_list() -> None:
    """Seven models with three rates, two random twins with two, six of edits, eight areas."""
    every = list(published())
    assert len(every) == 7 * 3 + 2 * 2 + 6 + 8
    assert {one.model for one in every} == set(MODELS)
    assert all(0 < one.value < 1 for one in every)
    for one in every:
        if one.experiment != "removal":
            assert set(one.where) == set(EXPERIMENTS[one.experiment].keys)
    accuracy = {one.model: one.value for one in every if one.what == "top-1 accuracy"}
    assert accuracy["paper:vit-b-16-miil"] == pytest.approx(0.8626)


@pytest.mark.parametrize("name", ["paper:vit-b-32", "vit_base_patch32_224.augreg_in21k_ft_in1k"])
def test_each_value_is_counted_as_published(tmp_path: Path, name: str) -> None:
    made = Made(model=name, masks=True, conditions=ALL, images=16)
    written = write_store(tmp_path / "a.zarr", made)
    found = by_name(compare(analyze(tmp_path / "a.zarr", statistics=QUICK)))

    def rank(condition: str) -> np.ndarray:
        return np.asarray(written[condition]["rank"][:, made.sites.index("resid_post"), -1])

    assert found["tokens identifiable"].value == pytest.approx((rank("clean")[:, 1:] == 0).mean())
    assert found["top-1 accuracy"].value == pytest.approx(written["clean"]["correct"].mean())
    twin = found["random twin: images with at least one"].value
    assert twin == pytest.approx((rank("random_init")[:, 1:] == 0).any(axis=1).mean())
    # Edited rates include [CLS].
    cut = found["image tokens see themselves alone: tokens identifiable"].value
    assert cut == pytest.approx((rank("self_only") == 0).mean())
    shares = []
    for ranks, kept in zip(rank("context_removed"), written["context_removed"]["kept"] == 1, strict=True):
        shares.append((ranks[kept] == 0).mean())
    assert found["context removed: tokens identifiable"].value == pytest.approx(np.mean(shares))
    kept = written["class_removed"]["kept"][:, 1:] == 1
    pooled = (rank("clean")[:, 1:][kept] == 0).mean()
    (unedited,) = [
        one
        for one in compare(analyze(tmp_path / "a.zarr", statistics=QUICK))
        if one.published.where.get("condition") == "class_removed" and one.published.where["tokens_are"] == "unedited"
    ]
    assert unedited.value == pytest.approx(pooled)
    assert unedited.published.value == pytest.approx(0.5624)


def test_without_cls_the_first_image_token_is_left_out(tmp_path: Path) -> None:
    made = Made(model="paper:vit-b-16-gap", prefix=(), images=10)
    written = write_store(tmp_path / "a.zarr", made)
    rank = written["clean"]["rank"][:, made.sites.index("resid_post"), -1]
    found = by_name(compare(analyze(tmp_path / "a.zarr", statistics=QUICK)), "paper:vit-b-16-gap")
    assert found["tokens identifiable"].value == pytest.approx((rank[:, 1:] == 0).mean())


def test_why_there_is_no_value(tmp_path: Path) -> None:
    write_store(tmp_path / "a.zarr", Made(model="paper:vit-b-32", conditions=("clean", "no_cls"), images=4))
    analysis = analyze(tmp_path / "a.zarr", statistics=QUICK)
    every = compare(analysis, {"paper:vit-l-16": "no network"})
    found = by_name(every)
    assert not isnan(found["image tokens do not see [CLS]: tokens identifiable"].value)
    reasons = {what: one.reason for what, one in found.items() if isnan(one.value)}
    assert reasons["image tokens see themselves alone: tokens identifiable"].endswith("add --conditions self_only")
    assert reasons["random twin: tokens identifiable"].endswith("add --conditions random_init")
    assert "have no masks" in reasons["class removed: tokens identifiable"]
    area = "area under the curve"
    assert reasons[f"token removal, Chefer, negative: {area}"] == "add --removal and --models paper:vit-b-32"
    assert "no probes" in reasons[f"token removal, linear probe, negative: {area}"]
    scores = pd.DataFrame(
        [
            {"metric": "removal", "method": method, "measure": measure, "value": value, "low": 0.1, "high": 0.9}
            for method, measure, value in (
                ("chefer", "positive_auc_reference", 0.4),
                ("chefer", "negative_auc_reference", 0.8),
                ("class_gradient:loss=double_softmax", "negative_auc_reference", 0.7),
                ("class_gradient", "negative_auc_reference", 0.6),
                ("chefer", "negative_auc", 0.5),
            )
        ]
    )
    removed = by_name(compare(analysis, removal={"paper:vit-b-32": scores}))
    assert removed[f"token removal, Chefer, negative: {area}"].value == 0.8
    assert removed[f"token removal, Chefer, positive: {area}"].value == 0.4
    assert removed[f"token removal, class gradient, negative: {area}"].value == 0.7
    assert removed[f"token removal, random, negative: {area}"].reason == "no image has such a value"
    assert {one.reason for one in by_name(every, "paper:vit-l-16").values()} == {"no network"}
    assert {one.reason for one in by_name(every, "paper:vit-b-16").values()} == {"add --models paper:vit-b-16"}
    some = analyze(tmp_path / "a.zarr", statistics=QUICK, experiments=["evolution"])
    assert "the analysis has no identifiability" in by_name(compare(some))["tokens identifiable"].reason
