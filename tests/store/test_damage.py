"""Files of a store that are missing, cut off or changed: they are told, never read as fill values, and mended."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from classlens.store.chunks import ChunkError, check_file
from classlens.store.damage import find_damage
from classlens.store.metadata import read_array
from classlens.store.open_store import open_group, open_store
from classlens.store.store import Store, create_store, find_store
from tests.data.pictures import assert_same
from tests.refusals import refused
from tests.store.small import IMAGES, part, schema, values

CONTENT = np.arange(IMAGES, dtype=np.int64) + 1
AGREEMENT = np.zeros(3)


def make(path: Path, shards: int = 3) -> Path:
    """A store with a group whose first shards are written, one of them with a skipped image, and parameters."""
    store = create_store(str(path), {"model": "tiny"})
    add(store)
    for shard in range(shards):
        write(store, shard)
    return path


def add(store: Store) -> None:
    store.add_group("clean", schema())
    if not store.has_group("parameters"):
        store.write_group("parameters", {"agreement": (("block",), AGREEMENT)}, {"block": ("block", np.arange(3))})


def write(store: Store, shard: int) -> None:
    images = slice(64 * shard, min(64 * shard + 64, IMAGES))
    store.write("clean", images.start, part(values(), images), {3: "damaged"} if not shard else {}, CONTENT[images])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


FILES = {
    "clean/rank/c/1/0/0/0": {1},
    "clean/logit/c/2/0": {2},
    "clean/measured/c/1": {1},
    "clean/content/c/0": {0},
    "clean/problem/c/0": {0},
    "clean/image/c/0": set(),
    "clean/block/c/0": set(),
    "parameters/agreement/c/0": set(),
    "parameters/block/c/0": set(),
}
"""Files, and the shards that are measured anew where one is damaged."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make(tmp_path_factory.mktemp("stores") / "whole.zarr")
    assert find_damage(path) == []
    return path


@pytest.mark.parametrize("file", FILES)
def test_damage_is_told_and_mended(file: str, whole: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(whole, tmp_path / "run.zarr"))
    content, array = (path / file).read_bytes(), "/".join(file.split("/")[:2])
    for damage in (cut, flip, lambda path: path.write_bytes(b""), Path.unlink):
        (path / file).write_bytes(content)
        damage(path / file)
        assert [found.key for found in find_damage(path)] == [file]
        says = (f"store {str(path)!r} is damaged", file, repr(array), "measures this part anew")
        refused(lambda: open_store(path).load(), *says)
    store = Store(str(path))
    assert store.repair() == 1
    pending = {shard for shard in range(3) if (store.status("clean")[64 * shard : 64 * shard + 64] == 0).all()}
    assert pending == FILES[file]
    add(store)
    for shard in pending:
        write(store, shard)
    assert find_damage(path) == []
    assert_same(path, whole)


@pytest.mark.parametrize("file", ["logit/c/0/0", "measured/c/0", "rank/c/2/0/0/0", "token_kind/c/0"])
def test_no_changed_bit_is_read_as_another_value(file: str, whole: Path) -> None:
    path = whole / "clean" / file
    metadata, data = read_array((path.parents[file.count("/") - 1] / "zarr.json").read_bytes()), path.read_bytes()
    check_file(data, metadata)
    step = 1 if len(data) < 200 else 7
    for bit in range(0, 8 * len(data), step):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ChunkError):
            check_file(bytes(changed), metadata)


def test_pending_images_need_no_files(tmp_path: Path) -> None:
    path = make(tmp_path / "run.zarr", shards=1)
    assert find_damage(path) == []
    data = open_group(path, "clean").load()
    assert (data["rank"].values[64:] == -1).all()
    assert data["measured"].values.tolist() == [1] * 3 + [2] + [1] * 60 + [0] * 66
    # As a run leaves it that was stopped before the marker.
    store = Store(str(path))
    with store._write_errors():
        store._array("clean", "rank")[64:128] = 5
    assert find_damage(path) == []
    assert store.repair() == 0


def test_values_that_are_all_fill_values_have_files(tmp_path: Path) -> None:
    """Otherwise a lost file could not be told from one that was never needed."""
    store = create_store(str(tmp_path / "run.zarr"), {})
    store.add_group("clean", schema(3))
    store.write("clean", 0, {name: array[:3] for name, array in schema(3).blank(3).items()}, {})
    assert find_damage(store.url) == []
    Path(store.url, "clean/rank/c/0/0/0/0").unlink()
    assert len(find_damage(store.url)) == 1


def test_damaged_metadata(tmp_path: Path) -> None:
    path = make(tmp_path / "run.zarr")
    (path / "clean/rank/zarr.json").write_text("{")
    assert [found.key for found in find_damage(path)] == ["clean/rank/zarr.json"]
    refused(lambda: Store(str(path)).repair(), "remove the folder 'clean'", "run the same command")


def test_in_an_object_store(tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}/run.zarr"
    store = create_store(url, {"model": "tiny"})
    add(store)
    for shard in range(3):
        write(store, shard)
    assert find_damage(url) == []
    store._files.remove("clean/rank/c/1/0/0/0")
    assert [found.key for found in find_damage(url)] == ["clean/rank/c/1/0/0/0"]
    refused(lambda: open_store(url)["clean"]["rank"].load(), "is damaged", "clean/rank/c/1/0/0/0")
    found: Any = find_store(url)
    assert found.repair() == 1
    write(found, 1)
    np.testing.assert_array_equal(open_group(url, "clean")["rank"].values, values()["rank"])


def test_the_configuration_of_zarr_is_left_as_it_was(tmp_path: Path) -> None:
    make(tmp_path / "run.zarr")
    assert zarr.config.get("array.write_empty_chunks") is False
