"""Hidden units, their value vectors, and what they write, against the arrays of the store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from classlens.analysis.atlas.atlas import atlas
from tests.analysis.atlas.conftest import CLASSES, Case, drawn_spec
from tests.analysis.atlas.literal import assert_mean
from tests.analysis.atlas.stores import AtlasSpec, write_atlas_store
from tests.analysis.stores import StoreSpec

UNITS = 7


def test_units_and_their_values(case: Case) -> None:
    stored = case.written["unit_tokens"]
    table = case.atlas["units"]
    units = [(block, unit) for block in range(3) for unit in range(UNITS - (block == 1))]
    assert list(zip(table["block"], table["unit"], strict=True)) == units
    for row in table.to_dict("records"):
        index = row["block"], row["unit"]
        best = int(stored["value_class"][index][0])
        assert (row["active_share"], row["coefficient"]) == (
            stored["active_share"][index],
            stored["coefficient"][index][0],
        )
        assert (row["value_class"], row["value_name"]) == (best, f"class {best}")
        assert row["value_cosine"] == stored["value_cosine"][index][0]
    rows = case.atlas["unit_values"].to_dict("records")
    assert [(row["block"], row["unit"], row["class_rank"]) for row in rows] == [
        (*u, k) for u in units for k in range(5)
    ]
    for row in rows:
        entry = row["block"], row["unit"], row["class_rank"]
        assert (row["category"], row["class_name"]) == (stored["value_class"][entry], f"class {row['category']}")
        assert (row["score"], row["cosine"]) == (stored["value_score"][entry], stored["value_cosine"][entry])


def test_what_units_write_is_summed_over_lists(case: Case) -> None:
    stored = case.written["units"]
    unit, value = stored["top_unit"][:, 0], stored["top_unit_contribution"][:, 0].astype(np.float64)
    rows = {(row["category"], row["block"], row["unit"]): row for row in case.atlas["unit_writers"].to_dict("records")}
    wanted = {}
    for category in range(CLASSES):
        images = [image for image in case.of(category, "all") if image != 12]  # whose units are pending
        for number in range(3 * UNITS):
            values, lacking, listed = [], 0.0, 0
            for image in images:
                ranks = np.flatnonzero(unit[image] == number)
                listed += len(ranks)
                values.append(float(value[image, ranks[0]]) if len(ranks) else 0.0)
                lacking += 0.0 if len(ranks) else abs(float(value[image, -1]))
            if listed and np.mean(values) > 0:
                wanted[category, number // UNITS, number % UNITS] = values, listed, lacking / len(images)
    assert set(rows) == set(wanted)
    for key, row in rows.items():
        values, listed, bound = wanted[key]
        assert (row["images"], row["listed"]) == (len(values), listed)
        assert row["bound"] == pytest.approx(bound, abs=1e-9)
        assert_mean(row, values, "contribution")
    table = case.atlas["unit_writers"]
    assert (table.groupby("category")["contribution"].diff().dropna() <= 0).all(), "the largest first"


def test_the_bound_holds(tmp_path: Path) -> None:
    """Lists of all units give the means; those of short lists are off by no more than their bound."""
    clean = StoreSpec(images=60, classes=3, conditions=("clean",))
    tables = {}
    for listed in (3, 40):
        write_atlas_store(tmp_path / f"{listed}.zarr", AtlasSpec(clean=clean, units=40, listed=listed * 3))
        tables[listed] = atlas(tmp_path / f"{listed}.zarr")["unit_writers"].set_index(["category", "block", "unit"])
    both = tables[3].join(tables[40].add_suffix("_all"), how="inner")
    off = (both["contribution"] - both["contribution_all"]).abs()
    assert len(both) > 30
    assert (off <= both["bound"] + 1e-12).all()
    assert off.max() > 0.05
    assert (tables[3].groupby("category").size() <= 30).all()
    assert (tables[40]["bound"] == 0).all(), "lists of all units lack none"
    assert (tables[40].groupby("category").size() == 30).all()


def test_lists_with_room_left_lack_nothing(tmp_path: Path) -> None:
    spec = drawn_spec()
    write_atlas_store(tmp_path / "all.zarr", AtlasSpec(clean=spec.clean, listed=25))
    table = atlas(tmp_path / "all.zarr")["unit_writers"]
    assert (table["bound"] == 0).all()
    assert (table["listed"] == table["images"]).all()
