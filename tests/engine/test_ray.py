"""Runs on a real Ray cluster of this machine give the same stores, probes and tuned lenses, bit by bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

import classlens
from classlens import ClasslensError, measure, probe, tune
from classlens.data.open_dataset import open_dataset
from classlens.engine.model_source import ModelSource
from classlens.engine.progress import Progress
from classlens.engine.ray import Cluster, connected, pool_size
from classlens.engine.session import RunOptions, Session
from classlens.lens.tuned_lens import TunedLens
from classlens.store.open_store import open_group
from classlens.store.store import Store
from classlens.tasks.tuned_lens.state_cache import TrainingStates
from tests.data.pictures import assert_same, folder, picture
from tests.refusals import refused

MODEL = "builtin:cifar10"


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two CPUs and no dashboard, for all tests of this file."""
    ray = pytest.importorskip("ray")
    threads = str(torch.get_num_threads())
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"OMP_NUM_THREADS": threads}}
    )
    yield
    ray.shutdown()


def actor_processes() -> set[int]:
    """Processes of actors that measure."""
    processes = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if command.startswith(b"ray::") and b"_Actor" in command:
            processes.add(int(process.name))
    return processes


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="processes are listed through /proc")
def test_an_actor_is_killed(tmp_path: Path) -> None:
    data = folder(tmp_path / "images", 640)
    options: dict[str, Any] = {"conditions": ("clean", "random_init", "no_cls"), "memories": True}
    measure(MODEL, data, tmp_path / "local.zarr", **options)
    killed: list[int] = []

    def kill(progress: Progress) -> None:
        if 64 <= progress.done < 400 and not killed:
            assert len(actor_processes()) == 2
            killed.append(min(actor_processes()))
            os.kill(killed[0], signal.SIGKILL)

    result = measure(
        MODEL, data, tmp_path / "ray.zarr", **options, engine="ray", cluster=Cluster(actors=2), report=kill
    )
    assert killed
    assert (result.images, result.before) == (640, 0)
    assert_same(tmp_path / "ray.zarr", tmp_path / "local.zarr")


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_run_resumes_on_another_engine_and_reports_unreadable_images(tmp_path: Path) -> None:
    data = folder(tmp_path / "images", 200)
    bad = sorted((tmp_path / "images").rglob("*.png"))[130]
    bad.write_bytes(bytes(len(bad.read_bytes())))
    with pytest.raises(ClasslensError, match=f"{bad.name}.*all before it is saved"):
        measure(MODEL, data, tmp_path / "run.zarr")
    assert open_group(tmp_path / "run.zarr", "clean")["measured"].values.tolist() == [1] * 130 + [0] * 70
    options: dict[str, Any] = {"engine": "ray", "cluster": Cluster(actors=1)}
    with pytest.raises(ClasslensError, match=bad.name):
        measure(MODEL, data, tmp_path / "run.zarr", **options)
    result = measure(MODEL, data, tmp_path / "run.zarr", **options, skip_bad=True)
    assert len(result.skipped) == 1
    measure(MODEL, data, tmp_path / "local.zarr", skip_bad=True)
    assert_same(tmp_path / "run.zarr", tmp_path / "local.zarr")


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_an_input_error_of_an_actor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An actor that cannot load its model ends the run in one sentence; here, a checkpoint is on one machine only."""
    (tmp_path / "images").mkdir()
    picture(0).save(tmp_path / "images" / "0.png")
    data, checkpoint = f"folder:{tmp_path / 'images'}", tmp_path / "weights.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), checkpoint)
    add_group = Store.add_group

    def remove(self: Any, *args: Any) -> None:
        add_group(self, *args)
        checkpoint.unlink()

    monkeypatch.setattr(Store, "add_group", remove)
    options: dict[str, Any] = {"checkpoint": checkpoint, "engine": "ray", "cluster": Cluster(actors=1)}
    message = refused(lambda: measure("test_vit", data, tmp_path / "run.zarr", **options))
    assert str(checkpoint) in message


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_decoders_on_a_cluster(tmp_path: Path) -> None:
    """Actors load the model, the tuned lens and the probes themselves."""
    train, test = train_and_test(tmp_path)
    lens = classlens.load(MODEL)
    width, blocks = 128, len(lens.view.blocks)
    tuned_lens = TunedLens(torch.eye(width).repeat(blocks, 1, 1) + 0.02, torch.zeros(blocks, width))
    probe(MODEL, train, test, tmp_path / "probes", sites="resid_post", tokens="cls", workers=0)
    options: dict[str, Any] = {
        "conditions": ("clean", "tuned_lens", "probe"),
        "tuned_lens": tuned_lens,
        "probes": tmp_path / "probes",
        "sites": "resid_post",
    }
    measure(MODEL, test, tmp_path / "local.zarr", **options, workers=0)
    measure(MODEL, test, tmp_path / "ray.zarr", **options, engine="ray", cluster=Cluster(actors=2))
    assert_same(tmp_path / "ray.zarr", tmp_path / "local.zarr")


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    "options",
    # RAM for 12 probes of width 128 and 10 classes, and the features of eight images.
    [
        {"tokens": "cls", "alpha": "loo", "ram": 12 * (8 * 128 * 138 + 8 * 4 * 128)},
        {"kind": "pooled", "ram": 12 * (8 * (12288 + 1280) + 8 * 4 * 128 * 64)},
    ],
)
def test_probes_trained_on_a_cluster(tmp_path: Path, options: dict[str, Any]) -> None:
    """Also resumed there from a checkpoint of a local run, where probes have sums."""
    train, test = train_and_test(tmp_path)
    options = {"sites": ("attn_out", "resid_post"), "batch_size": 4, **options}
    cluster: dict[str, Any] = {"engine": "ray", "cluster": Cluster(actors=2)}
    expected = probe(MODEL, train, test, tmp_path / "local", **options, workers=0)
    result = probe(MODEL, train, test, tmp_path / "ray", **options, **cluster)
    assert (result.trained, result.passes) == (expected.trained, expected.passes)
    if "kind" not in options:

        def stop(now: Progress) -> None:
            if now.done == 20:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            probe(MODEL, train, test, tmp_path / "resumed", **options, workers=0, report=stop)
        assert list((tmp_path / "resumed").rglob("training.checkpoint"))
        probe(MODEL, train, test, tmp_path / "resumed", **options, **cluster)
    for out in (path for path in (tmp_path / "ray", tmp_path / "resumed") if path.exists()):
        folders = [path for path in (tmp_path / "local").iterdir() if path.suffix != ".zarr"]
        for file in (file for path in folders for file in path.iterdir()):
            assert (out / file.relative_to(tmp_path / "local")).read_bytes() == file.read_bytes(), file.name
        assert_same(out / "probes.zarr", tmp_path / "local/probes.zarr")


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_lens_tuned_on_a_cluster(tmp_path: Path) -> None:
    """The caller's settings of Ray Data stay as they are."""
    from ray.data import DataContext

    context = DataContext.get_current()
    before = (context.enable_progress_bars, context.execution_options.preserve_order)
    train, _ = train_and_test(tmp_path)
    (tmp_path / "train" / "cat" / "0003.png").write_bytes(b"no image")
    options: dict[str, Any] = {"epochs": 2, "batch_size": 8, "held_out": 0.25, "skip_bad": True}
    local = tune(MODEL, train, tmp_path / "local.safetensors", **options, workers=0)
    cluster = tune(MODEL, train, tmp_path / "ray.safetensors", **options, engine="ray", cluster=Cluster(actors=2))
    assert torch.equal(cluster.tuned_lens.weight, local.tuned_lens.weight)
    assert torch.equal(cluster.tuned_lens.bias, local.tuned_lens.bias)
    assert (cluster.blocks, cluster.constant) == (local.blocks, local.constant)
    assert not torch.equal(cluster.tuned_lens.weight[0], torch.eye(128))
    assert (context.enable_progress_bars, context.execution_options.preserve_order) == before


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_states_in_another_order_from_a_cluster(tmp_path: Path) -> None:
    """As a tuned lens takes them where they do not fit the RAM."""
    dataset = open_dataset(train_and_test(tmp_path)[0])
    order = np.random.default_rng(0).permutation(len(dataset))
    local, cluster = (
        list(TrainingStates(session, 1, pooled_only=True).batches(order))
        for session in (
            Session(ModelSource(MODEL, {}), dataset, RunOptions(batch_size=8, **options), labeled=False)
            for options in ({"workers": 0}, {"engine": "ray", "cluster": Cluster(actors=2)})
        )
    )
    assert [len(blocks[0]) for blocks in cluster] == [8, 8, 4]
    for batch, expected in zip(cluster, local, strict=True):
        assert all(torch.equal(states, others) for states, others in zip(batch, expected, strict=True))


def train_and_test(root: Path) -> tuple[str, str]:
    """Twenty training images and fifteen others."""
    train, test = folder(root / "train", 20), folder(root / "test", 30)
    for path in sorted((root / "test").rglob("*.png"))[::2]:
        path.unlink()
    return train, test


def test_a_loaded_model_and_a_missing_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = folder(tmp_path / "images", 3)
    refused(
        lambda: measure(classlens.load(MODEL), data, tmp_path / "run.zarr", engine="ray"),
        "give the model's name, which each worker loads",
    )
    monkeypatch.setitem(sys.modules, "ray", None)
    refused(lambda: measure(MODEL, data, tmp_path / "run.zarr", engine="ray"), "pip install 'classlens[ray]'")


@pytest.mark.parametrize(
    ("cluster", "resources", "expected"),
    [
        (Cluster(), {"CPU": 8.0}, (4, 0.0)),
        (Cluster(), {"CPU": 1.0}, (1, 0.0)),
        (Cluster(), {"CPU": 64.0, "GPU": 8.0}, (8, 1.0)),
        (Cluster(gpus=0.5), {"CPU": 64.0, "GPU": 8.0}, (16, 0.5)),
        (Cluster(gpus=2), {"GPU": 3.0}, (1, 2)),
        (Cluster(actors=3), {"CPU": 64.0, "GPU": 8.0}, (3, 1.0)),
        (Cluster(gpus=0), {"CPU": 64.0, "GPU": 8.0}, (32, 0)),
        (Cluster(actors=5), {}, (5, 0.0)),
    ],
)
def test_the_number_of_actors(cluster: Cluster, resources: dict[str, float], expected: tuple[int, float]) -> None:
    assert pool_size(cluster, resources) == expected


def test_more_gpus_than_there_are() -> None:
    refused(lambda: pool_size(Cluster(gpus=0.5), {"CPU": 4.0}), "gpus is 0.5", "has 0 GPUs", "0 to run on CPUs")
    refused(lambda: pool_size(Cluster(gpus=2), {"GPU": 1.0}), "gpus is 2", "has 1 GPUs")


@pytest.mark.parametrize("address", ["auto", "ray://host:10001"])
def test_a_running_cluster_is_taken_as_it_is(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: given.append(options))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with connected(Cluster(address=address)):
        assert [(options["address"], "include_dashboard" in options) for options in given] == [(address, False)]


def test_how_a_ray_of_our_own_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the loopback interface, also where the environment names a cluster; nothing reports or can be asked."""
    given: list[dict[str, Any]] = []

    def init(**options: Any) -> None:
        given.append({**options, "usage": os.environ["RAY_USAGE_STATS_ENABLED"]})

    library = SimpleNamespace(is_initialized=lambda: False, init=init, shutdown=lambda: given.append({}))
    monkeypatch.setitem(sys.modules, "ray", library)
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "1")
    with connected(Cluster()) as ray:
        assert ray is library
        assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    started, stopped = given
    assert (started["address"], started["_node_ip_address"]) == ("local", "127.0.0.1")
    assert (started["include_dashboard"], started["usage"]) == (False, "0")
    assert not any("host" in name or "port" in name for name in started)
    assert not stopped


OWN = """
import os, sys
from classlens.engine.ray import Cluster, connected
with connected(Cluster()) as ray:
    import psutil
    children = psutil.Process().children(recursive=True)
    sockets = [(one.name(), each) for one in [psutil.Process(), *children] for each in one.net_connections()]
    listening = {each.laddr.ip: name for name, each in sockets if each.status == "LISTEN"}
    print(sorted(listening), "gcs_server" in [one.name() for one in children])
    names = [" ".join(one.cmdline()) for one in children]
    pages = [name for name in names if "dashboard.py" in name and "--disable-frontend" not in name]
    print(pages, os.environ["RAY_USAGE_STATS_ENABLED"])
print(ray.is_initialized())
"""


@pytest.mark.slow
def test_a_ray_of_our_own_listens_on_loopback_alone() -> None:
    pytest.importorskip("ray")
    environment = {**os.environ, "RAY_ADDRESS": "192.0.2.1:6379"}  # not for us: a Ray of our own was asked for
    said = subprocess.run([sys.executable, "-c", OWN], env=environment, capture_output=True, text=True, timeout=300)
    listening, dashboards, connected_after = said.stdout.splitlines()[-3:]
    assert set(listening.split("]")[0].strip("[").replace("'", "").split(", ")) <= {"127.0.0.1", "::ffff:127.0.0.1"}
    assert listening.endswith("True")
    assert (dashboards, connected_after) == ("[] 0", "False")
