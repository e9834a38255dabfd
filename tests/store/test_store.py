"""Writing a store: whole shards, markers last, groups that are complete or made again."""

from __future__ import annotations

import errno
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from classlens.errors import ClasslensError
from classlens.store.metadata import SHARD
from classlens.store.store import Store, create_store, find_store, partition_ranges
from tests.refusals import refused
from tests.store.small import IMAGES, part, schema, values


@pytest.fixture(params=["local", "object store"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    url = str(tmp_path / "run.zarr") if request.param == "local" else f"memory://{tmp_path.name}/run.zarr"
    store = create_store(url, {"model": "tiny"})
    store.add_group("clean", schema())
    return store


def read(store: Store, group: str = "clean") -> xr.Dataset:
    """As xarray reads it without help of the package."""
    target = store.url if "://" not in store.url else zarr.storage.FsspecStore.from_url(store.url)
    data: xr.Dataset = xr.open_zarr(target, group=group, consolidated=False, chunks=None).load()
    return data


def test_a_new_group_is_blank_and_pending(store: Store) -> None:
    data = read(store)
    assert (data["rank"] == -1).all()
    assert np.isnan(data["logit"]).all()
    assert data["rank"].dtype == np.int16, "no _FillValue that turns integers into floats"
    assert not data["measured"].any()
    assert data["token_kind"].dims == ("token",)
    assert set(data.coords) == {"image", "site", "block", "token", "token_kind", "problem"}
    assert store.status("clean").tolist() == [0] * IMAGES
    assert store.problems("clean") == {}
    assert store.group_attributes("clean")["note"] == "for tests"
    assert store.attributes == {"format": 2, "model": "tiny"}


def test_shards_are_written_one_by_one(store: Store) -> None:
    arrays = values()
    store.write("clean", SHARD, part(arrays, slice(SHARD, 2 * SHARD)), {70: "cannot be read"})
    store.write("clean", 2 * SHARD, part(arrays, slice(2 * SHARD, IMAGES)), {})
    assert store.status("clean").tolist() == [0] * 64 + [1] * 6 + [2] + [1] * 59
    assert Store(store.url).problems("clean") == {70: "cannot be read"}
    data = read(store)
    np.testing.assert_array_equal(data["rank"][SHARD:], arrays["rank"][SHARD:])
    np.testing.assert_array_equal(data["logit"][SHARD:], arrays["logit"][SHARD:])
    assert (data["rank"][:SHARD] == -1).all()
    assert data["problem"].values[70] == "cannot be read"


def test_part_of_a_shard_leaves_the_others_pending(store: Store) -> None:
    arrays = values()
    store.write("clean", 0, part(arrays, slice(0, 10)), {})
    assert store.status("clean").tolist() == [1] * 10 + [0] * (IMAGES - 10)
    store.write("clean", 0, part(arrays, slice(0, SHARD)), {})
    np.testing.assert_array_equal(read(store)["rank"][:SHARD], arrays["rank"][:SHARD])


def test_a_write_within_a_shard_leaves_its_other_images(store: Store) -> None:
    arrays = values()
    for images in (slice(40, 50), slice(0, 10)):
        store.write("clean", images.start, part(arrays, images), {})
    written = np.r_[0:10, 40:50]
    assert np.flatnonzero(store.status("clean")).tolist() == written.tolist()
    np.testing.assert_array_equal(read(store)["rank"].values[written], arrays["rank"][written])


def test_the_marker_is_written_last(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    original = zarr.Array.__setitem__

    def recorded(self: Any, where: Any, data: Any) -> None:
        written.append(self.basename)
        original(self, where, data)

    monkeypatch.setattr(zarr.Array, "__setitem__", recorded)
    store.write("clean", 0, part(values(), slice(0, 5)), {1: "damaged"})
    assert written[-2:] == ["problem", "measured"]
    assert set(written) == {"rank", "logit", "content", "problem", "measured"}


def test_a_failed_write_leaves_the_shard_pending(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    original = zarr.Array.__setitem__

    def full(self: Any, where: Any, data: Any) -> None:
        if self.basename == "logit":
            raise OSError(errno.ENOSPC, "No space left on device")
        original(self, where, data)

    with monkeypatch.context() as patch:
        patch.setattr(zarr.Array, "__setitem__", full)
        with pytest.raises(ClasslensError, match=r"No space left on device\): make room.* run the same command again"):
            store.write("clean", 0, part(values(), slice(0, 5)), {})
    assert not store.status("clean").any()


def test_an_existing_group_stays_and_an_incomplete_one_is_made_again(store: Store) -> None:
    store.write("clean", 0, part(values(), slice(0, 5)), {})
    store.add_group("clean", schema())
    assert store.status("clean").sum() == 5
    # As a stopped run leaves it: arrays without the attribute that is written last.
    root: Any = zarr.open_group(store._root.store, mode="r+")
    half = root.create_group("no_cls")
    half.create_array("rank", shape=(3,), dtype="int16")
    store.add_group("no_cls", schema())
    assert read(store, "no_cls")["rank"].shape == (IMAGES, 2, 3, 5)


@pytest.mark.parametrize(
    ("change", "other"),
    [
        ({"dtype": np.dtype("int32")}, "rank"),
        ({"note": "another definition"}, "rank"),
        ({"dims": ("image", "token")}, "rank"),
    ],
)
def test_a_group_of_another_definition_is_refused(store: Store, change: dict[str, Any], other: str) -> None:
    variables = schema().variables
    changed = {**variables, other: replace(variables[other], **change)}
    refused(lambda: store.add_group("clean", replace(schema(), variables=changed)), "'clean'", f"another {other!r}")


def test_a_group_with_other_labels_is_refused(store: Store) -> None:
    coords = dict(schema().coords)
    name, (dim, labels) = next(iter(coords.items()))
    other = replace(schema(), coords={**coords, name: (dim, labels[::-1].copy())})
    refused(lambda: store.add_group("clean", other), "'clean'", f"another {name!r}")


def test_parameters_replace_earlier_ones(store: Store) -> None:
    assert not store.has_group("parameters")
    coords = {"block": ("block", np.arange(2))}
    for number in (1.0, 2.0):
        store.write_group("parameters", {"agreement": (("block", "unit"), np.full((2, 4), number))}, coords)
    assert store.has_group("parameters")
    data = read(store, "parameters")
    assert data["agreement"].dims == ("block", "unit")
    assert (data["agreement"] == 2.0).all()


def test_a_local_store_appears_with_its_attributes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is renamed at the end; what fails before leaves nothing."""
    out = tmp_path / "new" / "run.zarr"

    def fails(source: Any, target: Any) -> None:
        assert not out.exists()
        assert zarr.open_group(source, mode="r").attrs["classlens"] == {"format": 2, "model": "tiny"}
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("classlens.store.store.os.rename", fails)
        refused(lambda: create_store(str(out), {"model": "tiny"}), "Permission denied", "where you may write")
    assert list(out.parent.iterdir()) == []
    create_store(str(out), {"model": "tiny"})
    assert [path.name for path in out.parent.iterdir()] == ["run.zarr"]
    assert stat.S_IMODE(out.stat().st_mode) == 0o755


def test_half_written_files_are_cleared(tmp_path: Path) -> None:
    store = create_store(str(tmp_path / "run.zarr"), {})
    store.add_group("clean", schema())
    leftover = tmp_path / "run.zarr/clean/rank/c/0.1a2b.partial"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    store.clear_leftovers()
    assert not leftover.exists()


def test_a_store_that_is_gone(tmp_path: Path) -> None:
    assert find_store(str(tmp_path / "run.zarr")) is None
    refused(lambda: Store(str(tmp_path / "run.zarr")), "is gone")


def test_partitions_are_whole_shards() -> None:
    assert partition_ranges(130, 64) == [range(64), range(64, 128), range(128, 130)]
    assert partition_ranges(128, 128) == [range(128)]
    assert partition_ranges(0, 64) == []
