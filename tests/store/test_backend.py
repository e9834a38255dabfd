"""Where a store lies, and what is not one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import zarr

from classlens.store.backend import as_url, find_root, is_local
from classlens.store.store import create_store
from tests.refusals import refused


@pytest.mark.parametrize(
    ("spelling", "url", "local"),
    [
        ("run.zarr", "run.zarr", True),
        (Path("a/run.zarr"), "a/run.zarr", True),
        ("file:///a/run.zarr", "/a/run.zarr", True),
        ("s3://bucket/run.zarr", "s3://bucket/run.zarr", False),
    ],
)
def test_paths_and_urls(spelling: Any, url: str, local: bool) -> None:
    assert as_url(spelling) == url
    assert is_local(url) == local


def test_nothing_and_an_empty_folder_are_free(tmp_path: Path) -> None:
    assert find_root(str(tmp_path / "run.zarr")) is None
    assert find_root(str(tmp_path)) is None
    assert find_root("memory://nothing/here.zarr") is None


def test_other_things_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "work.txt").write_text("dear")
    (tmp_path / "file").write_text("dear")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    zarr.create_group(tmp_path / "other.zarr", zarr_format=3)
    zarr.create_group(tmp_path / "wrong.zarr", zarr_format=3, attributes={"classlens": "mine"})
    damaged = create_store(str(tmp_path / "damaged.zarr"), {}).url
    Path(damaged, "zarr.json").write_text("{")
    refused(lambda: find_root(damaged), "'zarr.json' is not as classlens writes it", "it is no JSON")
    for name in ("folder", "file", "link", "other.zarr", "wrong.zarr"):
        refused(lambda name=name: find_root(str(tmp_path / name)), name, "is no store of classlens")  # type: ignore[misc]
    assert (tmp_path / "folder" / "work.txt").read_text() == (tmp_path / "file").read_text() == "dear"


def test_another_format_is_refused(tmp_path: Path) -> None:
    url = create_store(str(tmp_path / "run.zarr"), {"model": "tiny"}).url
    zarr.open_group(url, mode="r+").attrs["classlens"] = {"format": 0, "model": "tiny"}
    refused(lambda: find_root(url), "has format 0", "reads and writes format 2", "another --out")


def test_an_unknown_protocol() -> None:
    refused(lambda: find_root("nosuch://bucket/run.zarr"), "cannot be reached", "URL that fsspec opens")
