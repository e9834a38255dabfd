"""The atlas as a whole: parts that were not measured, stores without labels, files, and a model's real numbers."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr
from PIL import Image

import classlens
from classlens.analysis.atlas import stored
from classlens.analysis.atlas.atlas import Atlas, atlas
from classlens.analysis.atlas.tables import TABLES
from classlens.errors import ClasslensError
from tests.analysis.atlas.conftest import IMAGES, Case, drawn_spec
from tests.analysis.atlas.stores import OF, SIDES, AtlasSpec, add_group, write_atlas_store
from tests.analysis.stores import StoreSpec
from tests.refusals import refused


def assert_same_tables(first: Atlas, second: Atlas) -> None:
    for name in TABLES:
        # Batches of other sizes are summed in another order.
        pd.testing.assert_frame_equal(first[name], second[name], rtol=1e-9, atol=1e-12)


def test_tables_have_their_columns_and_do_not_depend_on_batches(case: Case) -> None:
    assert set(case.atlas.tables) == set(TABLES)
    for name, table in case.atlas.tables.items():
        assert list(table.columns) == list(TABLES[name].columns)
        assert len(table), name
        assert table.index.tolist() == list(range(len(table)))
    assert_same_tables(atlas(case.atlas.store), case.atlas)


def test_facts_of_the_store(case: Case) -> None:
    facts = case.atlas
    assert (facts.blocks, facts.grid, facts.class_names) == (3, (2, 2), [f"class {number}" for number in range(6)])
    np.testing.assert_array_equal(facts.frames[7], [0, 0, 107, 80])
    assert np.isnan(facts.frames[2]).all()
    assert facts.frames.shape == (IMAGES, 4)
    counts = {name: facts.attrs[f"{name}_images"] for name in ("atlas", "skipped", "pending")}
    assert counts == {"atlas": 147, "skipped": 1, "pending": 2}
    assert (facts.attrs["model"], facts.attrs["classes_by"], facts.attrs["confidence"]) == ("synthetic", "label", 0.95)
    assert (facts.attrs["units_per_block"], facts.attrs["tokens_seen"]) == (7, 40)
    assert repr(facts) == "Atlas(6 classes, 8 heads, 20 units of 'synthetic')"


def test_tables_by_name(case: Case) -> None:
    assert case.atlas.writers is case.atlas["writers"] is case.atlas.tables["writers"]
    assert {"writers", "write"} <= set(dir(case.atlas))
    with pytest.raises(ClasslensError, match="table 'writer' is not known; did you mean 'writers'"):
        case.atlas["writer"]
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = case.atlas.nothing
    assert repr(pickle.loads(pickle.dumps(case.atlas))) == repr(case.atlas)


def test_parts_that_were_not_measured(tmp_path: Path) -> None:
    clean = StoreSpec(images=6, trajectory=False, sites=("mlp_out",), conditions=("clean",), memories=False)
    groups = ("units", "head_tokens", "unit_tokens", "head_maps")
    write_atlas_store(tmp_path / "bare.zarr", AtlasSpec(clean=clean, absent=groups))
    bare = atlas(tmp_path / "bare.zarr")
    empty = {name for name, table in bare.tables.items() if table.empty}
    assert empty - {"tips", "confusions"} == {
        *("trajectory", "class_tokens", "head_map", "head_tokens"),
        *("units", "unit_values", "unit_tokens", "unit_writers"),
    }
    for name in empty:
        expected = {column: spec.dtype for column, spec in TABLES[name].columns.items()}
        assert bare[name].astype(expected).dtypes.equals(bare[name].dtypes)
        assert list(bare[name].columns) == list(expected)
    assert bare["heads"]["copy_share"].isna().all()
    assert repr(bare) == "Atlas(5 classes, 8 heads of 'synthetic')"
    assert len(bare.write(tmp_path / "tables")) == len(TABLES)


def test_without_labels_the_prediction_counts(tmp_path: Path) -> None:
    spec = drawn_spec()
    facts = dict(spec.clean.facts["clean"])
    by_prediction = {**facts, "label": facts["prediction"], "target": facts["prediction"]}
    none = np.full(IMAGES, -1)
    unlabeled = {**by_prediction, "label": none.astype(np.int16), "correct": none.astype(np.int8)}
    with_facts = [replace(spec.clean, facts={"clean": each}) for each in (by_prediction, unlabeled)]
    of_label, of_prediction = tmp_path / "label.zarr", tmp_path / "prediction.zarr"
    write_atlas_store(of_label, replace(spec, clean=with_facts[0]))
    write_atlas_store(of_prediction, replace(spec, clean=with_facts[1]))
    # In the first store the label is the prediction, so that contributions to both are to be the same.
    copy_of_prediction(of_label)
    wanted, given = atlas(of_label), atlas(of_prediction)
    assert (wanted.attrs["classes_by"], given.attrs["classes_by"]) == ("label", "prediction")
    for name in ("trajectory", "writers"):
        rows = wanted[name].query("group == 'all'").reset_index(drop=True)
        pd.testing.assert_frame_equal(given[name], rows)
    for name in ("unit_writers", "class_tokens", "heads"):
        pd.testing.assert_frame_equal(given[name], wanted[name])
    assert given["classes"]["images"].sum() == 0
    assert given["classes"]["accuracy"].isna().all()
    assert given["classes"]["predicted"].tolist() == wanted["classes"]["predicted"].tolist()
    assert given["confusions"].empty
    assert given["tips"].empty


def copy_of_prediction(path: Path) -> None:
    """The contributions to the label become those to the prediction."""
    root: Any = zarr.open_group(str(path), mode="r+")
    names = ["head_contribution", "mlp_contribution", "embed_contribution", "bias_contribution", "attributed_logit"]
    for array in [*(f"attribution/{name}" for name in names), "units/top_unit", "units/top_unit_contribution"]:
        values = np.asarray(root[array][:])
        values[:, 0] = values[:, 1]
        root[array][:] = values


def test_files_are_written_all_or_none(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = case.atlas.write(tmp_path / "tables")
    assert sorted(paths) == sorted((tmp_path / "tables").iterdir())
    for path in paths:
        pd.testing.assert_frame_equal(pd.read_parquet(path), case.atlas[path.stem])
    before = {path.name: path.read_bytes() for path in paths}
    small = replace(case.atlas, tables={name: table.head(1) for name, table in case.atlas.tables.items()})
    plain = pd.DataFrame.to_parquet

    def failing(self: pd.DataFrame, path: Path, **options: object) -> None:
        if ".units.parquet" in path.name:
            raise OSError("the disk is full")
        plain(self, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "to_parquet", failing)
        refused(lambda: small.write(tmp_path / "tables"), "the disk is full", "give another folder")
    assert {path.name: path.read_bytes() for path in (tmp_path / "tables").iterdir()} == before
    small.write(tmp_path / "tables")
    assert len(pd.read_parquet(tmp_path / "tables" / "writers.parquet")) == 1
    (tmp_path / "tables" / "notes.txt").write_text("mine")
    refused(lambda: small.write(tmp_path / "tables"), "holds other files than an atlas", "empty or new folder")
    assert (tmp_path / "tables" / "notes.txt").read_text() == "mine"


def test_progress_and_confidence(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "_MAX_VALUES", 1)
    reported: list[tuple[int, int]] = []
    narrow = atlas(case.atlas.store, confidence=0.5, report=lambda done, total: reported.append((done, total)))
    assert reported == [(0, 147), (62, 147), (126, 147), (147, 147)]
    wide, width = ((each["heads"]["distance_high"] - each["heads"]["distance_low"]) for each in (case.atlas, narrow))
    # Quantiles of Student's t for 146 degrees of freedom: 1.976 and 0.676.
    np.testing.assert_allclose(wide / width, 1.97635 / 0.67620, rtol=1e-4)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of a real model and drawn pictures, with its attribution as a trace has it."""
    folder = tmp_path_factory.mktemp("measured")
    rng = np.random.default_rng(0)
    for number in range(6):
        file = folder / "photos" / ("cat" if number % 2 else "ship") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(file)
    lens, store = classlens.load("builtin:cifar10"), folder / "photos.zarr"
    data = classlens.open_dataset(f"folder:{folder}/photos")
    classlens.measure(lens, data, store, sites="resid_post", workers=0)
    clean = classlens.open_store(store)["clean"].to_dataset()
    label, prediction = (clean[name].values.astype(int) for name in ("label", "prediction"))
    trace = lens.trace([data.picture(index) for index in range(len(data))])
    by_class = [trace.attribution(category) for category in range(10)]
    attention = trace.attention(blocks="all", heads="all", queries="all")
    heads = np.stack([each["attention_token"].sum("token").values for each in by_class], axis=1)
    names = ("mlp", "embed", "bias", "logit")
    others = {name: np.stack([each[name].values for each in by_class], axis=1) for name in names}
    images = np.arange(len(data))

    def chosen(values: np.ndarray) -> np.ndarray:
        return np.stack([values[images, label], values[images, prediction], values.mean(axis=1)], axis=1)

    shape = (len(data), *heads.shape[2:])
    arrays = {
        "head_contribution": (("image", "of", "block", "head"), chosen(heads)),
        "mlp_contribution": (("image", "of", "block"), chosen(others["mlp"])),
        "embed_contribution": (("image", "of"), chosen(others["embed"])),
        "bias_contribution": (("image", "of"), chosen(others["bias"])),
        "attributed_logit": (("image", "of"), chosen(others["logit"])),
        "attention_distance": (("image", "block", "head"), np.ones(shape)),
        "attention_entropy": (("image", "block", "head"), entropy(np.asarray(attention.values))),
        "frame": (("image", "side"), np.tile([0.0, 0.0, 32.0, 32.0], (len(data), 1))),
    }
    single = {name: (dims, values.astype(np.float32)) for name, (dims, values) in arrays.items()}
    add_group(store, "attribution", single, names=list(clean["image"].values), units=1, measured=[1] * len(data))
    return store


def entropy(weights: np.ndarray) -> np.ndarray:
    """Mean over queries, of weights ``[image, block, head, query, key]``."""
    return np.asarray(-(weights * np.log(np.maximum(weights, 1e-30))).sum(axis=-1).mean(axis=-1))


def test_parts_of_a_model_add_up_to_its_decision(measured: Path) -> None:
    result = classlens.atlas(measured)
    assert OF[0] == result.attrs["classes_by"]
    assert result.frames.shape == (6, len(SIDES))
    lens, data = classlens.load("builtin:cifar10"), classlens.open_dataset(f"folder:{measured.parent}/photos")
    logits = lens.trace([data.picture(index) for index in range(len(data))]).model_logits.values
    for name in ("cat", "ship"):
        category = result.class_names.index(name)
        images = [index for index in range(len(data)) if data.names[index].startswith(name)]
        wanted = np.mean([logits[image, category] - logits[image].mean() for image in images])
        parts = result.writers.query("category == @category and group == 'all'")["contribution"].sum()
        rest = float(result.dataset["embed"][category] + result.dataset["bias"][category])
        # Float32 contributions of 38 parts, as large as 10.
        assert parts + rest == pytest.approx(wanted, abs=1e-3)
        assert result.classes["images"][category] == 3
    assert len(result.class_tokens) == 6
    assert repr(result) == f"Atlas(10 classes, {6 * lens.view.blocks[0].heads} heads of 'builtin:cifar10')"
