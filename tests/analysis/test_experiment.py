"""Images in any parts make the same tables, and rows are means, changes and corrections of their own images."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from classlens.analysis.experiment import Key, Reduction, add_holm, averages, change_of, model_and_twin
from classlens.analysis.measured_store import MeasuredStore, StoredBatch
from classlens.analysis.registry import EXPERIMENTS
from classlens.core.arrays import Array
from classlens.core.stats import Statistics
from tests.analysis.stores import StoreSpec, write_store

IMAGES = 13
QUICK = Statistics(permutations=20, resamples=5)
ALL = ("clean", "random_init", "self_only", "no_cls", "context_removed", "class_removed")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> MeasuredStore:
    path = tmp_path_factory.mktemp("store") / "made.zarr"
    measured = {name: [1] * (IMAGES - number) + [0] * number for number, name in enumerate(ALL)}
    write_store(
        path, StoreSpec(images=IMAGES, masks=True, conditions=ALL, measured=measured, label_groups=(1, 0, -1, 0, 1))
    )
    store = MeasuredStore(path)
    for name in ALL:  # into memory, as every split reads everything again
        group = store.group(name)
        assert group is not None
        group.load()
    return store


def batch_of(store: MeasuredStore, start: int, stop: int) -> StoredBatch:
    return StoredBatch(store, start, stop - start, np.arange(stop - start))


@pytest.mark.parametrize("name", EXPERIMENTS)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.sets(st.integers(1, IMAGES - 1)))
def test_any_split_of_the_images_agrees(name: str, store: MeasuredStore, cuts: set[int]) -> None:
    """Law 5, in every value and count that is kept, to the bit."""
    update = EXPERIMENTS[name].update
    whole = update(batch_of(store, 0, IMAGES))
    merged = Reduction.merge([update(batch_of(store, *ends)) for ends in pairwise([0, *sorted(cuts), IMAGES])])
    for kind in ("values", "counts"):
        parts, expected = getattr(merged, kind), getattr(whole, kind)
        assert list(parts) == list(expected)
        for key in expected:
            np.testing.assert_array_equal(parts[key], expected[key], err_msg=str(key))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_tables_have_the_columns_of_their_keys_and_figures(name: str, store: MeasuredStore) -> None:
    experiment = EXPERIMENTS[name]
    table = experiment.compute(store, experiment.update(batch_of(store, 0, IMAGES)), QUICK).assign(model="one")
    assert {*experiment.keys, "value", "low", "high"} <= set(table.columns)
    for chart in experiment.charts:
        columns = [chart.rows, chart.columns, getattr(chart, "color", None), getattr(chart, "dash", None)]
        columns += [getattr(chart, axis, None) for axis in ("x", "y")] + list(getattr(chart, "labels", ()))
        assert {*columns, *chart.where} - {None} - {"depth"} <= set(table.columns), chart
        for column, values in chart.where.items():
            assert set(values) & set(table[column]), chart


def test_nothing_merges_to_nothing() -> None:
    assert Reduction.merge([]) == Reduction()
    numbers = ["value", "low", "high", "images"]
    assert averages(("a",), {}, QUICK).columns.tolist() == ["a", *numbers]
    assert averages(("a",), {}, QUICK, blocks=range(2)).columns.tolist() == ["a", "block", *numbers]


def test_rows_are_the_columns_of_their_values() -> None:
    values: dict[Key, Array] = {
        ("one", "x"): np.array([[1.0, 2], [3, np.nan]]),
        ("two", "y"): np.array([[0.0, 0], [0, 8]]),
    }
    table = averages(("first", "second"), values, QUICK, blocks=[4, 5])
    assert table[["first", "second", "block", "value", "images"]].to_numpy().tolist() == [
        ["one", "x", 4, 2, 2],
        ["one", "x", 5, 2, 1],
        ["two", "y", 4, 0, 2],
        ["two", "y", 5, 4, 2],
    ]
    weights: dict[Key, Array] = {key: np.array([[3.0, 1], [1, 1]]) for key in values}
    weighted = averages(("first", "second"), values, QUICK, blocks=[4, 5], weights=weights)
    assert weighted["value"].tolist() == [(3 * 1 + 3) / 4, 2, 0, 4]
    groups = np.array([1, 1, 0])
    values = {("one", "x"): np.array([[0.0], [1], [1]])}
    grouped = averages(("first", "second"), values, QUICK, groups=groups)
    assert grouped["value"].tolist() == [(1 / 2 + 1) / 2]
    assert "block" not in grouped


def test_changes_are_within_images_and_may_go_either_way() -> None:
    """Ten images that all fall by a half: two of 1,024 choices of signs are as far from 0."""
    change = change_of(np.zeros((10, 1)), np.full((10, 1), 0.5), Statistics(permutations=8000, resamples=5))
    assert [change[key] for key in ("change", "change_low", "change_high")] == [-0.5] * 3
    # Four standard deviations of 8,000 draws, and the one that is always counted.
    assert change["p"] == pytest.approx(2 / 1024, abs=4 * np.sqrt(2 / 1024 / 8000) + 1 / 8000)


def test_families_are_corrected_apart() -> None:
    table = pd.DataFrame({"a": ["x", "y", "x", "y"], "b": 0, "p": [0.25, 0.125, 0.5, np.nan]})
    corrected = add_holm(table, ("a", "b"))["p_holm"]
    assert corrected.tolist()[:3] == [0.5, 0.125, 0.5]
    assert np.isnan(corrected[3])
    assert add_holm(table, ())["p_holm"].tolist()[:3] == [0.5, 0.375, 0.5]


def test_conditions_are_the_model_and_its_twin(store: MeasuredStore) -> None:
    assert model_and_twin(store) == ("clean", "random_init")
