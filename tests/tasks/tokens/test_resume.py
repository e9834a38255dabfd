"""A run that is stopped, however it is stopped, ends with the values of one that was not."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

import classlens
from classlens import ClasslensError, measure
from classlens.engine import runner
from classlens.engine.progress import Progress
from classlens.store.lock import only_writer
from classlens.store.open_store import open_group
from tests.data.pictures import assert_same, folder
from tests.refusals import complaints

MODEL = "builtin:cifar10"
CONDITIONS = ("clean", "no_cls")
# Random moments come from a recorded seed, so that a failure can be had again.
SEED = 20261123


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return folder(tmp_path_factory.mktemp("data") / "images", 66)


@pytest.fixture(scope="module")
def whole(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run."""
    out = tmp_path_factory.mktemp("stores") / "whole.zarr"
    measure(MODEL, data, out, conditions=CONDITIONS, memories=True)
    return out


def command(data: str, out: Path, *more: str) -> list[str]:
    given = ["--model", MODEL, "--data", data, "--out", str(out), "--conditions", ",".join(CONDITIONS), "--memories"]
    return [sys.executable, "-m", "classlens", "measure", *given, "--log-json", *more]


def own_threads() -> dict[str, str]:
    """As many threads as the tests run with: sums in another order differ in their last digits."""
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}


@pytest.mark.slow
def test_killed_at_any_moment(data: str, whole: Path, tmp_path: Path) -> None:
    """``kill -9`` at random moments, from the start of the writing to its end, again and again on one store."""
    out, moments = tmp_path / "run.zarr", random.Random(SEED)
    kills, finished = 0, False
    for _ in range(30):
        run = subprocess.Popen(
            command(data, out), env=own_threads(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert run.stdout is not None
        line = run.stdout.readline()  # the first is said when measuring begins: before it nothing is written
        if kills < 6:
            time.sleep(moments.uniform(0, 0.5))
            run.send_signal(signal.SIGKILL)
        last = [line, *run.stdout.readlines()][-1]
        run.stdout.close()
        code = run.wait()
        if code == 0:
            finished = json.loads(last)["event"] == "finished"
            break
        assert code == -signal.SIGKILL
        kills += 1
    assert finished
    assert kills >= 3
    assert_same(out, whole)
    assert not list(out.rglob("*.partial")), "what was half-written is gone"


@pytest.mark.slow
def test_killed_while_the_store_is_made(data: str, whole: Path, tmp_path: Path) -> None:
    moments = random.Random(SEED)
    out = tmp_path / "run.zarr"
    for _ in range(3):
        run = subprocess.Popen(command(data, out), env=own_threads(), stdout=subprocess.DEVNULL)
        limit = time.monotonic() + 60
        while not any(tmp_path.iterdir()) and run.poll() is None and time.monotonic() < limit:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.15))
        run.kill()
        run.wait()
    measure(MODEL, data, out, conditions=CONDITIONS, memories=True)
    assert_same(out, whole)


class Stopped(Exception):
    pass


def stop_after(count: int) -> Any:
    def report(progress: Progress) -> None:
        if progress.done >= count:
            raise Stopped

    return report


def test_interrupted_and_gone_on_with(data: str, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.zarr"
    with pytest.raises(Stopped):
        measure(MODEL, data, out, conditions=CONDITIONS, memories=True, report=stop_after(64))
    partly = open_group(out, "clean")["measured"].values
    assert partly.tolist() == [1] * 64 + [0] * 2
    assert (open_group(out, "clean")["rank"].values[64:] == -1).all()
    seen: list[Progress] = []
    outcome = measure(MODEL, data, out, conditions=CONDITIONS, memories=True, report=seen.append)
    assert outcome.before == 64
    assert [(progress.done, progress.under_way) for progress in seen] == [(64, 0), (64, 1), (66, 0)]
    assert_same(out, whole)
    again = measure(MODEL, data, out, conditions=CONDITIONS, memories=True)
    assert again.before == again.images == 66


@pytest.mark.parametrize("seconds", [0.0, 1000.0])
def test_stopped_between_batches_and_conditions(
    data: str, whole: Path, tmp_path: Path, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is finished is kept, also where it was not yet written; a run goes on with the next condition of a batch."""
    monkeypatch.setattr(runner, "SAVE_SECONDS", seconds)
    out = tmp_path / "run.zarr"
    for stop in range(1, 10):

        def report(now: Progress, stop: int = stop) -> None:
            if 2 * now.done + (1 if now.under_way else 0) * 16 >= 16 * stop:
                raise Stopped

        with pytest.raises(Stopped):
            measure(MODEL, data, out, conditions=CONDITIONS, memories=True, report=report)
        counts = [int(open_group(out, name)["measured"].values.sum()) for name in CONDITIONS]
        assert counts == [min(66, 16 * ((stop + 1) // 2)), 16 * (stop // 2)]
    measure(MODEL, data, out, conditions=CONDITIONS, memories=True)
    assert_same(out, whole)


def test_conditions_that_are_added_later(data: str, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.zarr"
    measure(MODEL, data, out, conditions="no_cls", memories=True)
    measure(MODEL, data, out, conditions="clean", memories=True)
    assert_same(out, whole)


def test_batches_are_kept(data: str, tmp_path: Path) -> None:
    out = tmp_path / "run.zarr"
    with pytest.raises(Stopped):
        measure(MODEL, data, out, batch_size=10, report=stop_after(64))
    assert measure(MODEL, data, out).batch_size == 10
    with pytest.raises(ClasslensError, match="was begun with batch size 10, not 32"):
        measure(MODEL, data, out, batch_size=32)
    measure(MODEL, data, tmp_path / "large.zarr", batch_size=128)
    found, large = (open_group(path, "clean").load() for path in (out, tmp_path / "large.zarr"))
    np.testing.assert_allclose(found["logit"], large["logit"], atol=1e-3)
    assert (large["measured"] == 1).all()


def test_what_no_marker_vouches_for_is_measured_again(data: str, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.zarr"
    measure(MODEL, data, out, conditions=CONDITIONS, memories=True)
    (out / "clean/measured/c/1").unlink()
    (out / "clean/rank/c/1/0/0/0").unlink()
    measure(MODEL, data, out, conditions=CONDITIONS, memories=True)
    assert_same(out, whole)


def test_other_things_are_refused(data: str, whole: Path, tmp_path: Path) -> None:
    out = str(whole)
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}

    def refused(says: str, **changes: Any) -> None:
        given: dict[str, Any] = {"model": MODEL, "data": data, "conditions": CONDITIONS, "memories": True, **changes}
        with pytest.raises(ClasslensError) as error:
            measure(given.pop("model"), given.pop("data"), out, **given)
        assert says in str(error.value)
        assert str(error.value).count(". ") == 0

    refused("was begun with images 66, not 60", limit=60)
    refused(
        "with sites 'attn_out, resid_mid, mlp_out, resid_post, embed', not 'attn_out, mlp_out'",
        sites=["attn_out", "mlp_out"],
    )
    refused("was begun with memories True, not False", memories=False)
    refused("was begun with seed 0, not 1", seed=1)
    refused("was begun with another transform", transform="paper")
    refused("was begun with dtype 'float32', not 'float64'", dtype="float64")
    lens = classlens.load(MODEL)
    with torch.no_grad():
        lens.view.readouts[0].space.weight[0, 0] += 1
    refused("was begun with model", model=lens)
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_other_versions_are_refused(data: str, tmp_path: Path) -> None:
    out = tmp_path / "run.zarr"
    measure(MODEL, data, out, limit=3)
    root = zarr.open_group(out, mode="r+")
    kept: Any = root.attrs["classlens"]
    root.attrs["classlens"] = {**kept, "versions": {**kept["versions"], "torch": "1.0"}}
    with pytest.raises(ClasslensError, match="was begun with versions torch '1.0', not"):
        measure(MODEL, data, out, limit=3)
    root.attrs["classlens"] = {**kept, "format": 0}
    with pytest.raises(ClasslensError, match="has format 0"):
        measure(MODEL, data, out, limit=3)


def test_what_is_no_store_is_left_alone(data: str, tmp_path: Path) -> None:
    folder_of_mine, file = tmp_path / "mine", tmp_path / "notes.txt"
    folder_of_mine.mkdir()
    (folder_of_mine / "work.txt").write_text("dear")
    file.write_text("dear")
    zarr.create_group(tmp_path / "other.zarr", zarr_format=3)
    for path in (folder_of_mine, file, tmp_path / "other.zarr"):
        with pytest.raises(ClasslensError, match="is no store of classlens"):
            measure(MODEL, data, path)
    assert (folder_of_mine / "work.txt").read_text() == file.read_text() == "dear"
    with pytest.raises(ClasslensError, match="does not exist"):
        open_group(tmp_path / "nowhere.zarr", "clean")
    with pytest.raises(ClasslensError, match="cannot be (made|locked)"):
        measure(MODEL, data, file / "below" / "run.zarr", limit=3)


def test_an_image_that_cannot_be_read(data: str, tmp_path: Path) -> None:
    mine = folder(tmp_path / "images", 100)
    bad = sorted(Path(mine.removeprefix("folder:")).rglob("*.png"))[70]
    good = bad.read_bytes()
    out = tmp_path / "run.zarr"
    reference = tmp_path / "reference.zarr"
    measure(MODEL, mine, reference)
    bad.write_bytes(good[:8] + bytes(len(good) - 8))  # as long as before
    with pytest.raises(ClasslensError) as error:
        measure(MODEL, mine, out)
    assert bad.name in str(error.value)
    assert "--skip-bad" in str(error.value)
    found, expected = open_group(out, "clean").load(), open_group(reference, "clean").load()
    assert found["measured"].values.tolist() == [1] * 70 + [0] * 30, "everything before it is saved"
    np.testing.assert_array_equal(found["rank"][:70], expected["rank"][:70])
    outcome = measure(MODEL, mine, out, skip_bad=True)
    name = found["image"].values[70]
    assert list(outcome.skipped) == [name]
    found = open_group(out, "clean").load()
    assert found["measured"].values.tolist() == [1] * 70 + [2] + [1] * 29
    assert bad.name in str(found["problem"].values[70])
    others = np.arange(100) != 70
    for variable in ("rank", "logit", "top1", "prediction", "embed_rank"):
        np.testing.assert_array_equal(found[variable].values[others], expected[variable].values[others])
    assert (found["rank"].values[70] == -1).all()
    assert np.isnan(found["logit"].values[70]).all()
    assert found["prediction"].values[70] == -1
    again = measure(MODEL, mine, out, skip_bad=True)
    assert again.before == 100
    assert again.skipped == outcome.skipped


def test_a_full_disk(data: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second shard finds no room; what was written before stays, and the run goes on when there is some."""
    out = tmp_path / "run.zarr"
    array: Any = zarr.Array.__setitem__

    def full(self: Any, where: Any, values: Any) -> None:
        if isinstance(where, slice) and where.start == 64 and self.basename == "logit":
            raise OSError(errno.ENOSPC, "No space left on device")
        array(self, where, values)

    with monkeypatch.context() as patch:
        patch.setattr(zarr.Array, "__setitem__", full)
        with pytest.raises(ClasslensError, match=r"No space left on device.*make room"):
            measure(MODEL, data, out, conditions=CONDITIONS, memories=True)
    assert open_group(out, "clean")["measured"].values[:64].all()
    assert not open_group(out, "clean")["measured"].values[64:].any()
    measure(MODEL, data, out, conditions=CONDITIONS, memories=True)
    assert_same(out, whole)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="limits on the size of files are Unix's")
def test_a_file_that_may_not_grow(data: str, tmp_path: Path) -> None:
    """The system itself refuses to write: no marker vouches for what is incomplete."""
    limit = "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)); "
    limit += "from classlens.cli import app; app()"
    out = tmp_path / "run.zarr"
    arguments = command(data, out)[3:]
    done = subprocess.run([sys.executable, "-c", limit, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "cannot be written (" in done.stderr
    assert len(complaints(done.stderr)) == 1
    assert not open_group(out, "clean")["measured"].values.any()


def test_two_writers(data: str, tmp_path: Path) -> None:
    out = tmp_path / "run.zarr"

    def second(progress: Progress) -> None:
        if progress.done:
            with pytest.raises(ClasslensError, match="is being written by another process"):
                measure(MODEL, data, out, limit=60)

    measure(MODEL, data, out, limit=60, report=second)
    assert [path.name for path in tmp_path.iterdir()] == ["run.zarr"], "no lock is left"


def test_a_store_in_an_object_store(data: str, whole: Path) -> None:
    """Any URL of fsspec; here one that lives in memory."""
    out = "memory://bucket/run.zarr"
    with pytest.raises(Stopped):
        measure(MODEL, data, out, conditions=CONDITIONS, memories=True, report=stop_after(64))
    with only_writer(out, local=False):
        with pytest.raises(ClasslensError, match="is being written by .*, process"):
            measure(MODEL, data, out, conditions=CONDITIONS, memories=True)
    measure(MODEL, data, out, conditions=CONDITIONS, memories=True)
    assert_same(out, whole)
    with pytest.raises(ClasslensError, match="cannot be reached"):
        measure(MODEL, data, "nosuch://bucket/run.zarr")
