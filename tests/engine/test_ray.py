"""The same store from a real Ray cluster on this machine, also when one of its workers is killed half-way."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

import classlens
from classlens import ClasslensError, measure, open_store
from classlens.engine.progress import Progress
from classlens.engine.ray import Cluster
from tests.data.pictures import assert_same, folder

MODEL = "builtin:cifar10"

pytest.importorskip("ray")
pytestmark = pytest.mark.slow


def workers() -> set[int]:
    """Processes of actors that measure."""
    found = set()
    for data_root in Path("/proc").glob("[0-9]*"):
        try:
            name = (data_root / "cmdline").read_bytes()
        except OSError:
            continue
        if name.startswith(b"ray::") and b"_Measure" in name:
            found.add(int(data_root.name))
    return found


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="processes are found through /proc")
def test_one_of_two_workers_is_killed_half_way(tmp_path: Path) -> None:
    data = folder(tmp_path / "images", 640)
    given: dict[str, Any] = {"conditions": ("clean", "random_init", "no_cls"), "memories": True}
    measure(MODEL, data, tmp_path / "local.zarr", **given)
    killed: list[int] = []

    def kill(progress: Progress) -> None:
        if 64 <= progress.done < 400 and not killed:
            assert len(workers()) == 2
            killed.append(min(workers()))
            os.kill(killed[0], signal.SIGKILL)

    outcome = measure(MODEL, data, tmp_path / "ray.zarr", **given, engine="ray", cluster=Cluster(actors=2), report=kill)
    assert killed
    assert (outcome.images, outcome.before) == (640, 0)
    assert_same(tmp_path / "ray.zarr", tmp_path / "local.zarr")


@pytest.mark.usefixtures("ray_cluster")
def test_a_run_goes_on_on_another_engine_and_tells_bad_images(tmp_path: Path) -> None:
    data = folder(tmp_path / "images", 200)
    bad = sorted((tmp_path / "images").rglob("*.png"))[130]
    bad.write_bytes(bytes(len(bad.read_bytes())))
    with pytest.raises(ClasslensError, match=f"{bad.name}.*all before it is saved"):
        measure(MODEL, data, tmp_path / "run.zarr")
    assert open_store(tmp_path / "run.zarr")["measured"].values.tolist() == [1] * 130 + [0] * 70
    with pytest.raises(ClasslensError, match=bad.name):
        measure(MODEL, data, tmp_path / "run.zarr", engine="ray", cluster=Cluster(actors=1))
    outcome = measure(MODEL, data, tmp_path / "run.zarr", engine="ray", cluster=Cluster(actors=1), skip_bad=True)
    assert len(outcome.skipped) == 1
    measure(MODEL, data, tmp_path / "local.zarr", skip_bad=True)
    assert_same(tmp_path / "run.zarr", tmp_path / "local.zarr")


def test_what_goes_to_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = folder(tmp_path / "images", 3)
    with pytest.raises(ClasslensError, match="give the model's name, which each worker loads"):
        measure(classlens.load(MODEL), data, tmp_path / "run.zarr", engine="ray")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClasslensError, match=r"pip install 'classlens\[ray\]'"):
        measure(MODEL, data, tmp_path / "run.zarr", engine="ray")
