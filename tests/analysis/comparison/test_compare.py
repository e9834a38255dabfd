"""Comparisons of two stores, beside slow twins that loop over images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr
from scipy import stats

from classlens.analysis.comparison import heads as comparison_heads
from classlens.analysis.comparison.compare import Comparison, compare
from classlens.analysis.comparison.tables import TABLES
from classlens.core.stats import Statistics
from tests.analysis.atlas.stores import AtlasSpec, write_atlas_store
from tests.analysis.comparison import literal
from tests.analysis.comparison.pairs import FIRST, PHOTOS, SECOND, SideSpec, drawn_labels, write_side
from tests.analysis.stores import StoreSpec

FAST = Statistics(resamples=40)


@dataclass(frozen=True)
class Case:
    comparison: Comparison
    pairs: list[tuple[dict[str, Any], dict[str, Any]]]

    @property
    def labeled(self) -> list[tuple[Any, Any]]:
        return literal.labeled(self.pairs)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("stores")
    first, second = write_side(folder / "before.zarr", FIRST), write_side(folder / "after.zarr", SECOND)
    pairs = literal.match(literal.read_images(first), literal.read_images(second), "content")
    return Case(compare(first, second, statistics=FAST), pairs)


def test_images_are_those_of_both(case: Case) -> None:
    table, attrs = case.comparison.images, case.comparison.attrs
    rows = {row["index_first"]: row for row in table.to_dict("records")}
    assert len(rows) == len(table) == len(case.pairs) == attrs["images"]
    for one, other in case.pairs:
        row = rows[one["index"]]
        label = one["label"] if one["label"] == other["label"] and one["label"] else ""
        expected = {
            "image": one["name"],
            "image_second": other["name"],
            "index_second": other["index"],
            "label": label,
            "prediction_first": one["prediction"],
            "prediction_second": other["prediction"],
            "confidence_first": one["confidence"],
            "confidence_second": other["confidence"],
            "kind": literal.kind(one, other),
            "commitment_first": one["commitment"],
            "commitment_second": other["commitment"],
        }
        assert {key: row[key] for key in expected} == expected
    order = ["broken", "fixed", "changed", "same"]
    places = [
        (order.index(row["kind"]), -row["confidence_second"], row["index_first"]) for row in table.to_dict("records")
    ]
    assert places == sorted(places)
    for kind in order:
        assert attrs[kind] == sum(literal.kind(*pair) == kind for pair in case.pairs) > 0
    assert attrs["labeled_images"] == len(case.labeled)
    assert attrs["other_labels"] == 1
    assert attrs["common_classes"] == 4
    assert attrs["matched_by"] == "content"
    assert attrs["first"]["only"] == PHOTOS - 2 - len(case.pairs)
    assert attrs["second"]["only"] == len(SECOND.images) - len(case.pairs)
    assert attrs["missing"] == {}


def test_flips_are_counted(case: Case) -> None:
    table = case.comparison.flips
    counts = literal.flips(case.pairs)
    keys = [tuple(row) for row in table[["label", "first", "second", "kind"]].to_numpy()]
    assert dict(zip(keys, table["images"], strict=True)) == counts
    assert table["images"].is_monotonic_decreasing


def test_classes(case: Case) -> None:
    table = case.comparison.classes.set_index("class_name")
    assert table["difference"].is_monotonic_increasing
    assert set(table.index) == {one["label"] for one, _ in case.labeled}
    p = {}
    for name, row in table.iterrows():
        members = [pair for pair in case.labeled if pair[0]["label"] == name]
        kinds = [literal.kind(*pair) for pair in members]
        fixed, broken = kinds.count("fixed"), kinds.count("broken")
        assert (row["images"], row["fixed"], row["broken"]) == (len(members), fixed, broken)
        for side, i in (("first", 0), ("second", 1)):
            hits = sum(pair[i]["prediction"] == name for pair in members)
            assert row[side] == pytest.approx(hits / len(members))
            assert (row[f"{side}_low"], row[f"{side}_high"]) == pytest.approx(literal.wilson(hits, len(members)))
        assert row["difference"] == pytest.approx((fixed - broken) / len(members))
        ends = literal.agresti_min(fixed, broken, len(members))
        assert (row["difference_low"], row["difference_high"]) == pytest.approx(ends)
        p[name] = literal.mcnemar(fixed, broken)
        assert row["p"] == pytest.approx(p[name])
    corrected = dict(zip(p, literal.benjamini_hochberg(list(p.values())), strict=True))
    assert table["p_adjusted"].to_dict() == pytest.approx(corrected)


def _mean_of(values: Sequence[float], drawn: Sequence[int]) -> float:
    return literal.mean([values[i] for i in drawn])


def test_summary(case: Case) -> None:
    table = case.comparison.summary.set_index("measure")
    right = [[pair[i]["prediction"] == pair[0]["label"] for pair in case.labeled] for i in (0, 1)]
    accuracy, n = table.loc["accuracy"], len(case.labeled)
    for side, hits in zip(("first", "second"), right, strict=True):
        assert accuracy[side] == pytest.approx(sum(hits) / n)
        assert (accuracy[f"{side}_low"], accuracy[f"{side}_high"]) == pytest.approx(literal.wilson(sum(hits), n))
    ends = literal.bootstrap(lambda drawn: sum(right[1][i] - right[0][i] for i in drawn) / n, n, FAST.resamples)
    assert accuracy["difference"] == pytest.approx((sum(right[1]) - sum(right[0])) / n)
    assert (accuracy["difference_low"], accuracy["difference_high"]) == pytest.approx(ends)
    kinds = [literal.kind(*pair) for pair in case.pairs]
    assert accuracy["p"] == pytest.approx(literal.mcnemar(kinds.count("fixed"), kinds.count("broken")))

    calibrated = [
        [(pair[i]["confidence"], hit) for pair, hit in zip(case.labeled, right[i], strict=True)] for i in (0, 1)
    ]

    def gap(drawn: list[int]) -> float:
        first, second = (literal.calibration([records[i] for i in drawn]) for records in calibrated)
        return second - first

    row = table.loc["calibration_error"]
    assert (row["first"], row["second"]) == pytest.approx([literal.calibration(records) for records in calibrated])
    assert (row["difference_low"], row["difference_high"]) == pytest.approx(literal.bootstrap(gap, n, FAST.resamples))

    for name in ("confidence", "entropy", "margin", "commitment", "tokens_on_top"):
        values = [
            (math.nan, math.nan)
            if name == "tokens_on_top" and one["target"] != other["target"]
            else (one[name], other[name])
            for one, other in case.pairs
        ]
        row = table.loc[name]
        assert row["images"] == sum(not math.isnan(one) for one, _ in values)
        first, second = zip(*values, strict=True)
        # Logits are stored in float32, and their differences are taken in float64 by both.
        assert (row["first"], row["second"]) == pytest.approx((literal.mean(first), literal.mean(second)))
        apart = [other - one for one, other in values]
        ends = literal.bootstrap(partial(_mean_of, apart), len(apart), FAST.resamples)
        assert (row["difference_low"], row["difference_high"]) == pytest.approx(ends)
    assert 0 < table.loc["tokens_on_top", "images"] < len(case.pairs)


def test_heads(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    table = case.comparison.heads
    p = []
    for row in table.to_dict("records"):
        values = [
            (one["parts"][row["block"], row["head"]], other["parts"][row["block"], row["head"]])
            for one, other in case.labeled
        ]
        first, second = np.array(values).T
        assert row["images"] == len(values)
        assert row["sublayer"] == ("mlp" if row["head"] < 0 else "attn")
        test = stats.ttest_rel(second, first)
        ends = test.confidence_interval(0.95)
        expected = {
            "first": first.mean(),
            "second": second.mean(),
            "difference": (second - first).mean(),
            "difference_low": ends.low,
            "difference_high": ends.high,
            "effect": (second - first).mean() / (second - first).std(ddof=1),
            "p": test.pvalue,
        }
        assert {key: row[key] for key in expected} == pytest.approx(expected)
        p.append(float(test.pvalue))
    assert table["p_adjusted"].tolist() == pytest.approx(literal.benjamini_hochberg(p))
    assert table["effect"].abs().is_monotonic_decreasing
    # Blocks have 3, 2 and 3 heads, and an MLP each.
    assert len(table) == 8 + 3


def test_classes_of_heads(case: Case) -> None:
    table = case.comparison.head_classes
    for (block, head), rows in table.groupby(["block", "head"]):
        means = {}
        for name in sorted({one["label"] for one, _ in case.labeled}):
            values = [
                other["parts"][block, head] - one["parts"][block, head]
                for one, other in case.labeled
                if one["label"] == name
            ]
            if len(values) > 1:
                means[name] = (
                    np.mean(values),
                    stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values)),
                )
        largest = sorted(means, key=lambda name: -abs(means[name][0]))[:5]
        assert rows["class_name"].tolist() == largest
        assert rows["difference"].tolist() == pytest.approx([means[name][0] for name in largest])
        assert rows["difference_low"].tolist() == pytest.approx([means[name][1][0] for name in largest])


def test_heads_do_not_depend_on_batches(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison_heads, "_MAX_VALUES", 1)
    first, second = write_side(tmp_path / "before.zarr", FIRST), write_side(tmp_path / "after.zarr", SECOND)
    again = compare(first, second, statistics=FAST)
    pd.testing.assert_frame_equal(again.heads, case.comparison.heads)


def test_trajectory(case: Case) -> None:
    table = case.comparison.trajectory
    n = len(case.labeled)
    assert table["depth"].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    for depth, row in enumerate(table.to_dict("records")):
        hits = [[pair[i]["tops"][depth] == pair[0]["label"] for pair in case.labeled] for i in (0, 1)]
        assert (row["block"], row["images"]) == (depth, n)
        for side, of_side in zip(("first", "second"), hits, strict=True):
            assert row[side] == pytest.approx(sum(of_side) / n)
            assert (row[f"{side}_low"], row[f"{side}_high"]) == pytest.approx(literal.wilson(sum(of_side), n))
        apart = [int(after) - int(before) for before, after in zip(*hits, strict=True)]
        ends = literal.bootstrap(partial(_mean_of, apart), n, FAST.resamples)
        assert (row["difference_low"], row["difference_high"]) == pytest.approx(ends)


def test_swapping_both_turns_signs(case: Case, tmp_path: Path) -> None:
    first, second = write_side(tmp_path / "before.zarr", FIRST), write_side(tmp_path / "after.zarr", SECOND)
    there, back = case.comparison, compare(second, first, statistics=FAST)
    assert [back.attrs[kind] for kind in ("broken", "fixed", "changed", "same")] == [
        there.attrs[kind] for kind in ("fixed", "broken", "changed", "same")
    ]
    keys = {"classes": ["class_name"], "heads": ["block", "head"], "trajectory": ["block"]}
    for name, key in keys.items():
        one, other = (table.set_index(key).sort_index() for table in (there.tables[name], back.tables[name]))
        assert other["difference"].to_numpy() == pytest.approx(-one["difference"].to_numpy())
        assert other["first"].to_numpy() == pytest.approx(one["second"].to_numpy())
        if "p" in one:
            assert other["p_adjusted"].to_numpy() == pytest.approx(one["p_adjusted"].to_numpy())
    assert back.summary["difference"].to_numpy() == pytest.approx(-there.summary["difference"].to_numpy())
    turned = {"broken": "fixed", "fixed": "broken"}
    expected = {
        (row.label, row.second, row.first, turned.get(row.kind, row.kind)): row.images
        for row in there.flips.itertuples()
    }
    assert {(row.label, row.first, row.second, row.kind): row.images for row in back.flips.itertuples()} == expected


def test_a_store_against_itself(tmp_path: Path) -> None:
    store = write_side(tmp_path / "a.zarr", FIRST)
    same = compare(store, store, statistics=FAST)
    assert same.attrs["same"] == same.attrs["images"] == PHOTOS - 2
    assert same.flips.empty
    for name in ("summary", "classes", "heads", "trajectory"):
        assert (same.tables[name]["difference"] == 0).all()
    assert (same.heads["effect"] == 0).all()
    assert (same.heads["p_adjusted"] == 1).all()
    assert (same.classes["p_adjusted"] == 1).all()
    assert same.summary.set_index("measure").loc["accuracy", "p"] == 1
    assert [same.attrs[side]["name"] for side in ("first", "second")] == ["synthetic (first)", "synthetic (second)"]


def test_exactly_known_heads_changed(tmp_path: Path) -> None:
    """Head 1.1 writes 0.5 more to class b alone, and the MLP of block 2 0.2 less to every class."""
    labels = drawn_labels(60, seed=3)
    spec = SideSpec(images=range(60), labels=labels, seed=4)
    first, second = write_side(tmp_path / "a.zarr", spec), write_side(tmp_path / "b.zarr", spec)
    group: Any = zarr.open_group(str(second), mode="r+")["attribution"]
    head, mlp = group["head_contribution"][...], group["mlp_contribution"][...]
    of_b = np.array([labels[photo] == "b" for photo in range(60)])
    head[of_b, 0, 1, 1] += 0.5
    mlp[:, 0, 2] -= 0.2
    group["head_contribution"][...], group["mlp_contribution"][...] = head, mlp
    result = compare(first, second, statistics=FAST)
    changed = result.heads[result.heads["difference"] != 0]
    assert list(zip(changed["block"], changed["head"], strict=True)) == [(2, -1), (1, 1)]
    # Contributions of a few units in float32 are rounded to 1e-7.
    assert changed["difference"].tolist() == pytest.approx([-0.2, 0.5 * of_b.mean()], abs=1e-6)
    assert (result.heads["p_adjusted"] < 0.05).sum() == 2
    most = result.head_classes.query("block == 1 and head == 1").iloc[0]
    assert (most["class_name"], most["images"]) == ("b", of_b.sum())
    assert most["difference"] == pytest.approx(0.5, abs=1e-6)
    assert result.attrs["same"] == 60


def test_tables_have_their_columns(case: Case) -> None:
    assert list(case.comparison.tables) == list(TABLES)
    for name, table in case.comparison.tables.items():
        assert list(table.columns) == list(TABLES[name].columns)
    assert repr(case.comparison).startswith(f"Comparison({len(case.pairs)} images by 'synthetic' and 'tuned': ")


def test_a_store_without_an_attributed_image_has_no_heads(tmp_path: Path) -> None:
    for name, status in (("a", 1), ("b", 2)):
        spec = AtlasSpec(clean=StoreSpec(conditions=("clean",)), measured={"attribution": [status] * 12})
        write_atlas_store(tmp_path / f"{name}.zarr", spec)
    comparison = compare(tmp_path / "a.zarr", tmp_path / "b.zarr", statistics=FAST)
    assert comparison.heads.empty
    assert "no image with an attribution" in comparison.attrs["missing"]["heads"]
    assert len(comparison.images) == 12
