"""One writer per store: locks of files, and notes where there are no locks."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest

from classlens.errors import ClasslensError
from classlens.store.lock import only_writer
from tests.refusals import refused

URL = "memory://locks/run.zarr"


def write_note(text: str) -> None:
    fsspec.filesystem("memory").pipe_file("/locks/run.zarr.lock", text.encode())


def read_note() -> dict[str, object]:
    note: dict[str, object] = json.loads(fsspec.filesystem("memory").cat_file("/locks/run.zarr.lock"))
    return note


def enter(url: str) -> None:
    with only_writer(url, local="://" not in url):
        pytest.fail("entered")


def test_a_local_store_has_one_writer(tmp_path: Path) -> None:
    url = str(tmp_path / "new" / "run.zarr")
    with only_writer(url, local=True) as renew:
        renew()
        refused(lambda: enter(url), "is being written by another process", "wait until it has finished")
    assert list(Path(url).parent.iterdir()) == []
    with only_writer(url, local=True):
        pass


def test_a_local_lock_ends_with_its_process(tmp_path: Path) -> None:
    url = str(tmp_path / "run.zarr")
    program = (
        "import os; from classlens.store.lock import only_writer\n"
        f"with only_writer({url!r}, local=True): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    assert [path.name for path in tmp_path.iterdir()] == [".run.zarr.lock"]
    with only_writer(url, local=True):
        pass


def test_a_folder_without_access(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("dear")
    refused(lambda: enter(str(tmp_path / "file" / "run.zarr")), "cannot be locked", "where you may write")


def test_a_note_of_another_writer() -> None:
    write_note(json.dumps({"writer": "host, process 1", "time": time.time()}))
    with pytest.raises(ClasslensError, match="is being written by host, process 1: wait"):
        enter(URL)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "3", '{"time": 1e12}', '{"writer": "host, process 1", "time": 1.0}', '{"writer": 1, "time": "x"}'],
)
def test_a_note_that_does_not_count(text: str) -> None:
    write_note(text)
    with only_writer(URL, local=False) as renew:
        renew()
        assert fsspec.filesystem("memory").exists("/locks/run.zarr.lock")
    assert not fsspec.filesystem("memory").exists("/locks/run.zarr.lock")


def test_a_note_is_renewed_before_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    write_note("")
    now = 1000.0
    monkeypatch.setattr("classlens.store.lock.time.time", lambda: now)
    with only_writer(URL, local=False) as renew:
        assert read_note()["time"] == 1000.0
        now = 1050.0
        renew()
        assert read_note()["time"] == 1000.0, "not with every call"
        now = 1100.0
        renew()
        assert read_note()["time"] == 1100.0
        now = 1650.0
        refused(lambda: enter(URL), "is being written by")
        write_note("")


def test_the_note_of_a_writer_that_took_over_stays() -> None:
    write_note("")
    with only_writer(URL, local=False):
        write_note(json.dumps({"writer": "host, process 2", "time": time.time()}))
    assert fsspec.filesystem("memory").exists("/locks/run.zarr.lock")
