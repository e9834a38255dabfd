"""One writer a store, where there are no locks: notes of others, broken ones, and ones of the past."""

from __future__ import annotations

import json
import time

import fsspec
import pytest

from classlens.errors import ClasslensError
from classlens.store.lock import only_writer

URL = "memory://locks/run.zarr"


def note(text: str) -> None:
    fsspec.filesystem("memory").pipe_file("/locks/run.zarr.lock", text.encode())


def test_a_note_of_another_writer() -> None:
    note(json.dumps({"writer": "host, process 1", "time": time.time()}))
    with pytest.raises(ClasslensError, match="is being written by host, process 1: wait"):
        with only_writer(URL, local=False):
            pytest.fail("entered")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "3", '{"time": 1e12}', '{"writer": "host, process 1", "time": 1.0}', '{"writer": 1, "time": "x"}'],
)
def test_a_note_that_does_not_count(text: str) -> None:
    note(text)
    with only_writer(URL, local=False) as renew:
        renew()
        assert fsspec.filesystem("memory").exists("/locks/run.zarr.lock")
    assert not fsspec.filesystem("memory").exists("/locks/run.zarr.lock")


def test_the_note_of_one_who_took_over_stays() -> None:
    note("")
    with only_writer(URL, local=False):
        note(json.dumps({"writer": "host, process 2", "time": time.time()}))
    assert fsspec.filesystem("memory").exists("/locks/run.zarr.lock")
