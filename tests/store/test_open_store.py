"""A store as a tree of labeled arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import classlens
from classlens.store.open_store import group_names, open_group, open_store
from classlens.store.store import Store, create_store
from tests.refusals import refused
from tests.store.small import IMAGES, part, schema, values


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = create_store(str(tmp_path / "run.zarr"), {"model": "tiny", "versions": {"torch": "2.6"}})
    for seed, name in enumerate(("no_cls", "clean")):
        store.add_group(name, schema())
        content = 2**60 + np.arange(64)
        store.write(name, 0, part(values(seed=seed), slice(0, 64)), {3: "damaged"}, content)
    store.write_group("parameters", {"agreement": (("block",), np.arange(3.0))}, {"block": ("block", np.arange(3))})
    return store


def test_nodes_are_groups(store: Store) -> None:
    tree = open_store(store.url)
    assert isinstance(tree, xr.DataTree)
    assert list(tree.children) == ["clean", "no_cls", "parameters"]
    assert tree["clean"]["rank"].dims == ("image", "site", "block", "token")
    np.testing.assert_array_equal(tree["clean"]["rank"][:64], values(seed=1)["rank"][:64])
    np.testing.assert_array_equal(tree["no_cls/logit"][:64], values(seed=0)["logit"][:64])
    assert tree["parameters/agreement"].values.tolist() == [0, 1, 2]
    chosen = tree["clean"]["rank"].sel(site="resid_post", block=2, image="7.png")
    np.testing.assert_array_equal(chosen, values(seed=1)["rank"][7, 1, 2])
    assert tree["clean"]["measured"].values.tolist() == [1] * 3 + [2] + [1] * 60 + [0] * (IMAGES - 64)
    assert tree["clean"]["problem"].values[3] == "damaged"


def test_attributes_of_root_and_nodes(store: Store) -> None:
    tree = open_store(store.url)
    assert tree.attrs == {"format": 2, "model": "tiny", "versions": '{"torch": "2.6"}'}
    assert tree["clean"].attrs["note"] == "for tests"
    assert "model" not in tree["clean"].attrs
    assert tree["clean"]["rank"].attrs["note"] == "rank of the target"


def test_values_are_read_on_access(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening reads coordinates alone; a site and block are read without the others."""
    read: list[tuple[str, Any]] = []
    original = zarr.Array.__getitem__

    def recorded(self: Any, where: Any) -> Any:
        read.append((self.basename, where))
        return original(self, where)

    monkeypatch.setattr(zarr.Array, "__getitem__", recorded)
    tree = open_store(store.url)
    coordinates = {"image", "site", "block", "token", "token_kind", "problem"}
    assert {name for name, _ in read} <= coordinates
    read.clear()
    rank = tree["clean"]["rank"].sel(site="attn_out", block=1)[:10]
    assert not read
    assert rank.load().shape == (10, 5)
    chunks = [where for name, where in read if name not in coordinates]
    assert [(images.stop, site, block) for images, site, block, _ in chunks] == [(10, 0, 1)]


def test_a_group_that_was_not_completed_is_not_shown(store: Store) -> None:
    root: Any = zarr.open_group(store.url, mode="r+")
    half = root.create_group("self_only")
    half.create_array("rank", shape=(3,), dtype="int16")
    assert list(open_store(store.url).children) == ["clean", "no_cls", "parameters"]
    assert group_names(store.url) == {"clean", "no_cls", "parameters"}
    refused(lambda: open_group(store.url, "self_only"), "no group 'self_only'", "it holds clean, no_cls, parameters")


def test_a_store_without_groups(tmp_path: Path) -> None:
    url = create_store(str(tmp_path / "run.zarr"), {"model": "tiny"}).url
    assert list(open_store(url).children) == []
    refused(lambda: open_group(url, "clean"), "it holds none yet")


def test_one_group_has_the_attributes_of_the_store(store: Store) -> None:
    data = open_group(store.url, "no_cls")
    assert isinstance(data, xr.Dataset)
    assert (data.attrs["model"], data.attrs["note"]) == ("tiny", "for tests")


def test_a_tree_as_netcdf(store: Store, tmp_path: Path) -> None:
    """Everything, with every type and attribute, in a format with groups."""
    pytest.importorskip("h5netcdf")
    tree = open_store(store.url)
    tree.to_netcdf(tmp_path / "run.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "run.nc", engine="h5netcdf") as copy:
        assert copy.attrs == tree.attrs
        assert list(copy.children) == list(tree.children)
        for name, node in tree.children.items():
            _require_equal(copy[name].to_dataset(), node.to_dataset())
            assert {key: value.dtype for key, value in copy[name].items() if value.dtype.kind in "iuf"} == {
                key: value.dtype for key, value in node.items()
            }


def test_a_condition_as_netcdf_3(store: Store, tmp_path: Path) -> None:
    """SciPy writes it: a format without groups and 64-bit numbers, such as hashes of images."""
    clean = open_store(store.url)["clean"].to_dataset()
    with pytest.raises(ValueError, match="could not safely cast array from int64"):
        clean.to_netcdf(tmp_path / "clean.nc", engine="scipy")
    clean.drop_vars("content").to_netcdf(tmp_path / "clean.nc", engine="scipy")
    with xr.open_dataset(tmp_path / "clean.nc", engine="scipy") as copy:
        _require_equal(copy.load(), clean.drop_vars("content"))


def _require_equal(copy: xr.Dataset, original: xr.Dataset) -> None:
    assert set(copy.variables) == set(original.variables)
    for name, variable in original.variables.items():
        assert copy[name].dims == variable.dims
        assert copy[name].attrs == variable.attrs
        if variable.dtype.kind in "iuf":
            np.testing.assert_array_equal(copy[name].values, variable.values)
        else:
            assert list(map(str, copy[name].values)) == list(map(str, variable.values))
    assert copy.attrs == original.attrs


def test_paths_and_urls(store: Store, tmp_path: Path) -> None:
    for spelling in (Path(store.url), store.url, f"file://{store.url}"):
        assert open_store(spelling).attrs["model"] == "tiny"
    url = f"memory://{tmp_path.name}/run.zarr"
    create_store(url, {"model": "elsewhere"}).add_group("clean", schema(3))
    assert classlens.open_store(url)["clean"]["rank"].shape == (3, 2, 3, 5)


def test_anything_else(tmp_path: Path) -> None:
    refused(lambda: open_store(tmp_path / "nowhere.zarr"), "does not exist", "`classlens measure --out`")
    (tmp_path / "notes.txt").write_text("dear")
    refused(lambda: open_store(tmp_path / "notes.txt"), "is no store of classlens")
