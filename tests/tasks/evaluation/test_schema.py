"""Stores of others with the metadata of a store: read as `evaluate` writes them, or refused in one sentence."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classlens import ClasslensError, Statistics
from classlens.store.open_store import open_store
from classlens.store.store import Store
from classlens.tasks.evaluation.evaluate import STORE
from classlens.tasks.evaluation.stored_ranks import stored_methods
from classlens.tasks.evaluation.tables import tables
from tests.refusals import refused
from tests.store.hostile import edit, limited, mutate
from tests.tasks.evaluation.runs import Evaluation

QUICK = Statistics(permutations=20, resamples=20)
SEED = 20261126
REMOVAL, DRAWN, SENSITIVITY = "removal.rollout", "removal.random", "class_sensitivity.rollout"


@pytest.fixture
def store(complete: Evaluation, tmp_path: Path) -> Path:
    return Path(shutil.copytree(complete.out / STORE, tmp_path / STORE))


def root(**values: Any) -> Callable[[Path], object]:
    return lambda store: edit(store / "zarr.json", lambda document: document["attributes"]["classlens"].update(values))


def attribute(group: str, **values: Any) -> Callable[[Path], object]:
    return lambda store: edit(store / group / "zarr.json", lambda document: document["attributes"].update(values))


def without(group: str, name: str) -> Callable[[Path], object]:
    return lambda store: edit(store / group / "zarr.json", lambda document: document["attributes"].pop(name))


def renamed(array: str, name: str) -> Callable[[Path], object]:
    return lambda store: (store / array).rename((store / array).with_name(name))


def dims(array: str, *names: str) -> Callable[[Path], object]:
    return lambda store: edit(store / array / "zarr.json", lambda document: document.update(dimension_names=names))


def values(array: str, change: Callable[[Any], Any]) -> Callable[[Path], object]:
    """Other values in the files of an array, with the checksums of a whole store."""

    def write(store: Path) -> None:
        stored = Store(str(store))._root[array]
        stored[...] = change(np.asarray(stored[...]))

    return write


def ends_at_zero(kept: Any) -> Any:
    return np.append(kept[:-1], 0)


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no mosaics": (without(REMOVAL, "mosaics"), "it lacks 'mosaics'"),
    "no grid": (without(REMOVAL, "grid"), "it lacks 'grid'"),
    "a huge grid": (attribute(REMOVAL, grid=[10**9, 10**9]), "its grid is [1000000000"),
    "a grid that is a text": (attribute(REMOVAL, grid="x"), "its grid is 'x'"),
    "another grid": (attribute(REMOVAL, grid=[128, 128]), "is missing or"),
    "many orders": (root(permutations=2**17), "its permutations is"),
    "one step": (root(steps=1), "its steps is 1"),
    "other steps": (root(steps=5), "'correct' is missing or of another form"),
    "another seed": (root(seed=1), "'order' is missing or holds other values"),
    "not drawn": (attribute(DRAWN, drawn=False), "'order' is missing or holds other values"),
    "no values": (renamed(f"{REMOVAL}/correct", "wrong"), "'correct' is missing or of another form"),
    "no labels": (renamed(f"{REMOVAL}/label", "labels"), "'label' is missing or of another form"),
    "no markers": (renamed(f"{REMOVAL}/measured", "done"), "'measured' is missing or of another form"),
    "no numbers": (renamed(f"{REMOVAL}/kept", "held"), f"file '{REMOVAL}/kept/zarr.json'"),
    "numbers down to none": (values(f"{REMOVAL}/kept", ends_at_zero), "'kept' is missing or holds other values"),
    "other dims": (dims(f"{REMOVAL}/correct", "image", "kept", "order"), "another form|cannot be opened"),
    "another array's dtype": (
        lambda store: shutil.copytree(
            store / REMOVAL / "label", store / SENSITIVITY / "correlation", dirs_exist_ok=True
        ),
        "'correlation' is missing or of another form",
    ),
    "classes of another model": (root(num_classes=2), "'label' has values beyond 1"),
    "a flag of 7": (values(f"{REMOVAL}/correct", lambda correct: 0 * correct + 7), "'correct' has values beyond 1"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_it_is_refused_in_a_sentence(case: str, store: Path) -> None:
    change, says = HOSTILE[case]
    change(store)
    with limited(20):
        message = refused(lambda: tables(str(store), QUICK), str(store))
    assert any(part in message for part in says.split("|")), message


READERS: dict[str, Callable[[str], object]] = {
    "open_store": lambda store: open_store(store).load(),
    "tables": lambda store: tables(store, QUICK),
    "stored ranks": stored_methods,
}


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_random_changes(part: int, complete: Evaluation, tmp_path: Path) -> None:
    """Every reader over random changes: a result or one sentence, in bounded time."""
    moments, other = random.Random(SEED + part), []
    for number in range(20):
        store = Path(shutil.copytree(complete.out / STORE, tmp_path / f"{number}" / STORE))
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
