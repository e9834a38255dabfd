"""Stores of others: read as they are, or refused in one sentence, without hangs and without running their code."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from classlens import ClasslensError, Statistics, analyze
from classlens.cli import app
from classlens.store.damage import find_damage
from classlens.store.open_store import open_store
from classlens.store.store import Store
from classlens.tasks.evaluation.stored_ranks import stored_methods
from classlens.tasks.evaluation.tables import tables
from tests.analysis.stores import StoreSpec, write_store
from tests.refusals import refused
from tests.store.hostile import DEEP, bomb, declared, edit, limited, mutate, version_2_group

SEED = 20261126
QUICK = Statistics(permutations=20, resamples=20)
ARRAY = "clean/rank/zarr.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "run.zarr"
    write_store(path, StoreSpec(images=70, conditions=("clean", "random_init", "probe")))
    return path


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run.zarr"))


def attribute(**values: Any) -> Callable[[Path], object]:
    return lambda store: edit(store / "zarr.json", lambda document: document["attributes"]["classlens"].update(values))


def field(file: str, **values: Any) -> Callable[[Path], object]:
    return lambda store: edit(store / file, lambda document: document.update(values))


def text(file: str, content: str) -> Callable[[Path], object]:
    return lambda store: (store / file).write_text(content)


def pipe(file: str) -> Callable[[Path], object]:
    def change(store: Path) -> None:
        (store / file).unlink()
        os.mkfifo(store / file)

    return change


def large(file: str) -> Callable[[Path], object]:
    """A sparse file of a tebibyte in the place of a file or a folder."""

    def change(store: Path) -> None:
        if (store / file).is_dir():
            shutil.rmtree(store / file)
        with (store / file).open("wb") as written:
            written.truncate(2**40)

    return change


def folder(file: str) -> Callable[[Path], object]:
    def change(store: Path) -> None:
        (store / file).unlink()
        (store / file).mkdir()
        (store / file / "kept").write_text("")

    return change


def linked_folder(file: str) -> Callable[[Path], object]:
    def change(store: Path) -> None:
        folder(file)(store)
        (store / file).rename(store.parent / "outside")
        (store / file).symlink_to(store.parent / "outside")

    return change


def link(file: str) -> Callable[[Path], object]:
    def change(store: Path) -> None:
        (store / file).rename(store.parent / "outside")
        (store / file).symlink_to(store.parent / "outside")

    return change


def chunk(file: str, data: bytes) -> Callable[[Path], object]:
    return lambda store: (store / file).write_bytes(data)


def without_dims(store: Path) -> None:
    edit(store / ARRAY, lambda document: document.pop("dimension_names"))


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pipe as a chunk": (pipe("clean/rank/c/0/0/0/0"), "'clean/rank/c/0/0/0/0' is no file"),
    "a pipe as metadata": (pipe(ARRAY), f"{ARRAY!r} is no file"),
    "a link out of the store": (link("clean/rank/c/0/0/0/0"), "is a link"),
    "a linked folder": (link("clean/rank/c"), "'clean/rank/c' is a link"),
    "many classes": (attribute(num_classes=10**12), "its num_classes is 1000000000000"),
    "many other classes": (attribute(num_classes=1000), "'rank' is missing or of another form|classes or sites"),
    "sites that are a number": (attribute(sites=3), "its sites is 3"),
    "other sites": (attribute(sites=["attn_out"]), "is missing or of another form"),
    "memories that are a text": (attribute(memories="no"), "its memories is 'no'"),
    "a long shape": (field(ARRAY, shape=[10**9, 4, 3, 5]), "its shape is"),
    "a wide shape": (field(ARRAY, shape=[70, 4, 3, 2**26]), "its chunk_grid is|its shape is"),
    "another dtype": (field(ARRAY, data_type="float64", fill_value=0.0), "damaged|of another form"),
    "a dtype of objects": (field(ARRAY, data_type={"name": "null_terminated_bytes"}), "its data_type is"),
    "deep JSON": (text(ARRAY, DEEP), "it is no JSON|too deep"),
    "deep JSON at the root": (text("zarr.json", DEEP), "it is no JSON|too deep"),
    "broken JSON": (text(ARRAY, "{"), "it is no JSON"),
    "no dims": (without_dims, "it has other fields, such as 'dimension_names'"),
    "a bomb": (chunk("clean/image/c/0", bomb(2**31)), "damaged"),
    "a declared size": (chunk("clean/image/c/0", declared(2**60)), "damaged"),
    "consolidated metadata": (field("zarr.json", consolidated_metadata={}), "such as 'consolidated_metadata'"),
    "a file in the place of a coordinate": (large("random_init/sublayer"), "'random_init/sublayer/zarr.json'"),
    "a large file as a chunk": (large("random_init/correct/c/1"), "'random_init/correct/c/1'"),
    "an old version": (field(ARRAY, zarr_format=2), "its zarr_format is 2"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_it_is_refused_in_a_sentence(case: str, store: Path) -> None:
    change, says = HOSTILE[case]
    change(store)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for call in (lambda: open_store(store).load(), lambda: analyze(store, statistics=QUICK)):
        if "other" in case and call.__code__.co_names[0] == "open_store":
            continue  # a whole store, but none of `measure`
        with limited(20):
            message = refused(call, str(store))
        assert any(part in message for part in says.split("|")), message
        assert len(message) < 500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20, "KiB"


@pytest.mark.parametrize("file", ["clean/rank/c/0/0/0/0", "clean/measured/c/1", "parameters/weights/c/0"])
@pytest.mark.parametrize("put", [large, pipe, folder, linked_folder])
def test_other_things_in_the_place_of_a_chunk_are_removed(
    put: Callable[[str], Callable[[Path], object]], file: str, store: Path
) -> None:
    """Repairing neither reads nor follows them."""
    put(file)(store)
    with limited(20):
        assert [damage.key for damage in find_damage(store)] == [file]
        assert Store(str(store)).repair() == 1
    assert not os.path.lexists(store / file) or (store / file).stat().st_size < 2**20
    assert put is not linked_folder or (store.parent / "outside/kept").exists()


def test_code_in_a_store_does_not_run(store: Path) -> None:
    """A group of Zarr version 2 with pickled objects, within a store of version 3."""
    ran = store.parent / "ran"
    version_2_group(store / "clean", ran)
    with limited(20):
        refused(lambda: analyze(store, statistics=QUICK), "has no condition 'clean'")
        assert "clean" not in open_store(store).children
    (store / "clean/zarr.json").write_text(
        '{"attributes": {"coordinates": ""}, "zarr_format": 3, "node_type": "group"}'
    )
    with limited(20):
        for read in (lambda: analyze(store, statistics=QUICK), lambda: open_store(store)):
            refused(read, str(store), "clean/image/zarr.json")
    assert not ran.exists()


def test_the_command_ends_with_one_line(store: Path, tmp_path: Path) -> None:
    attribute(sites=3)(store)
    result = CliRunner().invoke(app, ["analyze", str(store), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert result.output.startswith("Error: store")
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_values_that_the_model_does_not_have(tmp_path: Path) -> None:
    """Of the right type and whole: a rank beyond the classes would be counted as a share below 0."""
    spec = StoreSpec(images=3)
    facts = spec.axes.schema().blank(3)
    facts["rank"][:] = 30_000
    write_store(tmp_path / "run.zarr", StoreSpec(images=3, facts={"clean": {"rank": facts["rank"]}}))
    refused(lambda: analyze(tmp_path / "run.zarr", statistics=QUICK), "'rank' has values beyond 4")


def test_groups_that_a_store_does_not_have(tmp_path: Path) -> None:
    groups, rank = (0, 1, -1, 1, 0), np.full((3, 4), 2, dtype=np.int16)
    write_store(tmp_path / "a.zarr", StoreSpec(images=3, label_groups=groups))
    analyze(tmp_path / "a.zarr", experiments="dynamics", statistics=QUICK)
    Store(str(tmp_path / "a.zarr"))._root["clean/class_group"][...] = 2
    refused(lambda: analyze(tmp_path / "a.zarr", statistics=QUICK), "groups that it does not have")
    facts = {"clean": {"group_trajectory_rank": rank}}
    write_store(tmp_path / "b.zarr", StoreSpec(images=3, label_groups=groups, facts=facts))
    read = partial(analyze, tmp_path / "b.zarr", experiments="dynamics", statistics=QUICK)
    refused(read, "'group_trajectory_rank' has values beyond 1")


SOME = ("identifiability", "class_value_agreement", "compositionality")
READERS: dict[str, Callable[[str], object]] = {
    "open_store": lambda store: open_store(store).load(),
    "analyze": lambda store: analyze(store, experiments=SOME, statistics=QUICK),
    "find_damage": find_damage,
    "repair": lambda store: Store(store).repair(),
    "evaluate": lambda store: tables(store, QUICK),
    "stored ranks": stored_methods,
}


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_random_changes(part: int, whole: Path, tmp_path: Path) -> None:
    """Every reader over random changes: a result or one sentence, in bounded time and RAM."""
    moments = random.Random(SEED + part)
    before, other = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for number in range(16):
        store = Path(shutil.copytree(whole, tmp_path / f"{number}" / "run.zarr"))
        done = [mutate(store, moments) for _ in range(moments.choice((1, 1, 1, 3)))]
        for name, read in READERS.items():
            try:
                with limited(30):
                    read(str(store))
            except ClasslensError as error:
                if "\n" in str(error):
                    other.append((done, name, str(error)))
            except BaseException as error:
                other.append((done, name, repr(error)))
        shutil.rmtree(store.parent)
    assert not other, json.dumps(other[:5], indent=1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2 * 2**20, "KiB"
