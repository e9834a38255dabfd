"""Training that is stopped and resumed, within a pass and between passes, ends with the same bits."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

import classlens
from classlens import Lens, probe
from classlens.engine.progress import Progress
from classlens.models.transforms import paper_transform
from classlens.store.probe_folder import ProbeFolder, ProbeTokens
from classlens.tasks.probes import checkpoint as checkpoint_module
from classlens.tasks.probes.checkpoint import Checkpoint
from classlens.tasks.probes.probe import CONDITION_OF, STORE
from classlens.tasks.probes.ridge import LeaveOneOut, RidgeSums
from tests import zoo
from tests.data.pictures import assert_same, groups
from tests.refusals import refused
from tests.tasks.probes.stored import ram_for, stored_probes
from tests.tasks.tiny import BLOCKS, LOCAL, NAMES, Data, data_in, lens_of

TRAIN, TEST = 30, 9
CHECKPOINT = "training.checkpoint"
# One pass of 30 probes; the features of eight images are buffered, in batches of four.
ONE_PASS: dict[str, Any] = {"sites": ("attn_out", "resid_post"), "batch_size": 4, "ram": ram_for(30, 8), **LOCAL}
KINDS: dict[str, dict[str, Any]] = {
    "ridge": {},
    "loo": {"alpha": "loo"},
    "pooled loo": {"kind": "pooled", "alpha": "loo", "ram": ram_for(6, 8 * 4)},
    "logistic": {"kind": "logistic", "tokens": "cls", "ram": 6 * (4 * 24 * TRAIN + 8 * 24 * 8)},
}
# Four passes of eight probes each.
FOUR_PASSES: dict[str, Any] = {"sites": ("attn_out", "resid_post"), "ram": ram_for(8), **LOCAL}


class Stopped(BaseException):
    """As an interrupt: nothing catches it."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return data_in(tmp_path_factory.mktemp("data"), TRAIN, TEST)


@pytest.fixture(scope="module")
def undisturbed(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of runs that nobody stopped, by kind; made on first use."""
    root = tmp_path_factory.mktemp("undisturbed")

    def out_of(kind: str) -> Path:
        if not (root / kind).exists():
            options = FOUR_PASSES if kind == "four passes" else {**ONE_PASS, **KINDS[kind]}
            probe(lens_of(), *data, root / kind, **options)
        return root / kind

    return out_of


def assert_same_files(out: Path, expected: Path, kind: str = "ridge") -> None:
    folder = CONDITION_OF[KINDS.get(kind, {}).get("kind", "ridge")]
    names = sorted(path.name for path in (expected / folder).iterdir())
    assert names == sorted(path.name for path in (out / folder).iterdir()), "nothing else is left"
    assert CHECKPOINT not in names
    for name in names:
        assert (out / folder / name).read_bytes() == (expected / folder / name).read_bytes(), name
    assert_same(out / STORE, expected / STORE)


@contextmanager
def counted(lens: Lens) -> Iterator[list[int]]:
    """Images per forward pass of the model."""
    images: list[int] = []
    handle = lens.view.module.register_forward_hook(lambda module, args, output: images.append(len(output)))
    yield images
    handle.remove()


def stop_at(images: int) -> Callable[[Progress], None]:
    def report(now: Progress) -> None:
        if now.done >= images:
            raise KeyboardInterrupt

    return report


@pytest.mark.parametrize(
    ("kind", "stop", "remaining"),
    [
        # Flushes add the images before 8, 16 and 24; the batch that filled the buffer is not in the sums.
        ("ridge", 12, 22),
        ("ridge", 16, 22),
        ("ridge", 28, 6),
        ("loo", 12, 22 + TRAIN),
        ("loo", TRAIN + 20, 14),
        ("pooled loo", 20, 14 + TRAIN),
        ("pooled loo", TRAIN + 12, 22),
        ("logistic", 20, 14),
    ],
)
def test_stopped_within_a_pass(
    data: Data, undisturbed: Callable[[str], Path], tmp_path: Path, kind: str, stop: int, remaining: int
) -> None:
    options = {**ONE_PASS, **KINDS[kind]}
    with pytest.raises(KeyboardInterrupt):
        probe(lens_of(), *data, tmp_path / "run", **options, report=stop_at(stop))
    assert list((tmp_path / "run").rglob(CHECKPOINT))
    assert not list((tmp_path / "run").rglob("*.safetensors"))
    lens = lens_of()
    reports: list[Any] = []
    with counted(lens) as images:
        probe(lens, *data, tmp_path / "run", **options, report=reports.append)
    # The model runs over the test images once per condition.
    assert sum(images) == remaining + 2 * TEST
    resumed = [now for now in reports if now.before and now.doing != "measuring"]
    sweeps = 2 if options.get("alpha") == "loo" else 1
    assert resumed[-1].before == sweeps * TRAIN - remaining, "earlier images do not enter the rate"
    assert reports[-1].done == reports[-1].images == sweeps * TRAIN + TEST
    assert_same_files(tmp_path / "run", undisturbed(kind), kind)


def test_stopped_again_and_again(data: Data, undisturbed: Callable[[str], Path], tmp_path: Path) -> None:
    """Every run gets a little further than the one before."""
    options = {**ONE_PASS, **KINDS["loo"]}
    for stop in (12, 24, TRAIN + 12, TRAIN + 20):
        with pytest.raises(KeyboardInterrupt):
            probe(lens_of(), *data, tmp_path / "run", **options, report=stop_at(stop))
    probe(lens_of(), *data, tmp_path / "run", **options)
    assert_same_files(tmp_path / "run", undisturbed("loo"), "loo")


@pytest.mark.parametrize(("kind", "learner"), [("ridge", RidgeSums), ("loo", LeaveOneOut)])
def test_stopped_while_sums_are_updated(
    data: Data,
    undisturbed: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    learner: Any,
) -> None:
    """Sums of a few tokens hold more images than the others: they must not be saved."""
    options = {**ONE_PASS, **KINDS[kind]}
    original, calls = learner.update, 0

    def update(self: Any, *args: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 6 + 3:  # of six sites and blocks, the third in the second flush
            raise KeyboardInterrupt
        original(self, *args, **options)

    for seconds, remaining in ((0.0, 22), (60.0, TRAIN if kind == "ridge" else 2 * TRAIN)):
        out = tmp_path / f"{seconds}"
        calls = 0
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint_module, "CHECKPOINT_SECONDS", seconds)
            patch.setattr(checkpoint_module, "CHECKPOINT_SHARE", math.inf)
            patch.setattr(learner, "update", update)
            with pytest.raises(KeyboardInterrupt):
                probe(lens_of(), *data, out, **options)
        assert bool(list(out.rglob(CHECKPOINT))) == (seconds == 0)
        lens = lens_of()
        with counted(lens) as images:
            probe(lens, *data, out, **options)
        assert sum(images) == remaining + 2 * TEST
        assert_same_files(out, undisturbed(kind), kind)


def test_stopped_while_probes_are_solved(data: Data, undisturbed: Callable[[str], Path], tmp_path: Path) -> None:
    """Probes that are written are not trained again; the sums of the others are in the checkpoint."""

    def stop(now: Progress) -> None:
        if now.doing == "solving 3 of 6":
            raise KeyboardInterrupt

    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "save_if_due", Checkpoint.save)
        with pytest.raises(KeyboardInterrupt):
            probe(lens_of(), *data, out, **ONE_PASS, report=stop)
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    assert len(written) == 2
    lens = lens_of()
    with counted(lens) as images:
        assert probe(lens, *data, out, **ONE_PASS).trained == 4 * 5
    assert sum(images) == 6 + 2 * TEST
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert_same_files(out, undisturbed("ridge"))


PROGRAM = """
import os, signal, sys
from pathlib import Path
from classlens import probe
from classlens.tasks.probes import checkpoint
from tests.tasks.probes.test_training import KINDS, ONE_PASS
from tests.tasks.tiny import lens_of
import torch
torch.set_num_threads(1)
kind, saves, train, test, out = sys.argv[1:]
checkpoint.CHECKPOINT_SECONDS = 0.0
checkpoint.CHECKPOINT_SHARE = float("inf")
save, saved = checkpoint.Checkpoint.save, []
def counting(self, *args):
    save(self, *args)
    saved.append(args[1])
    self._cost = 0.0
    if len(saved) == int(saves):
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint.Checkpoint.save = counting
probe(lens_of(), train, test, out, **{**ONE_PASS, **KINDS[kind]})
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "saves", "remaining"),
    [("ridge", 2, 14), ("pooled loo", 5, 14), ("loo", 2, 14 + TRAIN), ("logistic", 3, 6)],
)
def test_killed_within_a_pass(
    data: Data, undisturbed: Callable[[str], Path], tmp_path: Path, kind: str, saves: int, remaining: int
) -> None:
    """``kill -9`` right after a checkpoint, with three checkpoints per sweep."""
    out = tmp_path / "run"
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, kind, str(saves), *data, str(out)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert run.returncode == -signal.SIGKILL
    lens = lens_of()
    with counted(lens) as images:
        probe(lens, *data, out, **{**ONE_PASS, **KINDS[kind]})
    assert sum(images) == remaining + 2 * TEST
    assert_same_files(out, undisturbed(kind), kind)


def stopped_run(data: Data, out: Path) -> Path:
    """A run that stopped at image 8; returns its checkpoint."""
    with pytest.raises(KeyboardInterrupt):
        probe(lens_of(), *data, out, **ONE_PASS, report=stop_at(12))
    return out / "probe" / CHECKPOINT


@pytest.mark.parametrize("damage", ["text", "cut", "another file of torch", "no states"])
def test_a_damaged_checkpoint(data: Data, undisturbed: Callable[[str], Path], tmp_path: Path, damage: str) -> None:
    path = stopped_run(data, tmp_path / "run")
    if damage == "text":
        path.write_text("dear")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        torch.save([1, 2] if damage == "another file of torch" else {"key": "", "stage": "sums", "next": 0}, path)
    refused(lambda: probe(lens_of(), *data, tmp_path / "run", **ONE_PASS), CHECKPOINT, "cannot be read", "remove it")
    path.unlink()
    probe(lens_of(), *data, tmp_path / "run", **ONE_PASS)
    assert_same_files(tmp_path / "run", undisturbed("ridge"))


def test_a_checkpoint_never_runs_code(data: Data, tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "touched",)

    path = stopped_run(data, tmp_path / "run")
    torch.save(Harmful(), path)
    refused(lambda: probe(lens_of(), *data, tmp_path / "run", **ONE_PASS), "cannot be read")
    assert not (tmp_path / "touched").exists()


def test_a_checkpoint_of_another_run(data: Data, undisturbed: Callable[[str], Path], tmp_path: Path) -> None:
    """A file from a run with other settings is ignored, and replaced."""
    foreign = stopped_run(data, tmp_path / "foreign").read_bytes()
    options = {**ONE_PASS, "alpha": 3.0}
    with pytest.raises(KeyboardInterrupt):
        probe(lens_of(), *data, tmp_path / "run", **options, report=stop_at(4))
    (tmp_path / "run/probe" / CHECKPOINT).write_bytes(foreign)
    lens = lens_of()
    with counted(lens) as images:
        probe(lens, *data, tmp_path / "run", **options)
    assert sum(images) == TRAIN + 2 * TEST
    assert not list(tmp_path.glob(f"run/**/{CHECKPOINT}"))
    probe(lens_of(), *data, tmp_path / "expected", **options)
    assert_same_files(tmp_path / "run", tmp_path / "expected")


def test_a_checkpoint_whose_tokens_were_split_in_another_way(data: Data, tmp_path: Path) -> None:
    """Runs with more and less RAM take turns; the checkpoint of the first does not hold the tokens of the third."""
    options = {**FOUR_PASSES, "batch_size": 4}
    small, large = ram_for(2, 8), ram_for(3, 8)
    with pytest.raises(KeyboardInterrupt):
        probe(lens_of(), *data, tmp_path / "run", **{**options, "ram": large}, report=stop_at(12))
    checkpoint = (tmp_path / "run/probe" / CHECKPOINT).read_bytes()

    def stop(now: Progress) -> None:
        if now.doing == "pass 2 of 15":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        probe(lens_of(), *data, tmp_path / "run", **{**options, "ram": small}, report=stop)
    (tmp_path / "run/probe" / CHECKPOINT).write_bytes(checkpoint)
    probe(lens_of(), *data, tmp_path / "run", **{**options, "ram": large})
    probe(lens_of(), *data, tmp_path / "expected", **{**options, "ram": large})
    assert_close(tmp_path / "run", tmp_path / "expected")


@pytest.mark.parametrize("error", [OSError("No space left on device"), RuntimeError("PytorchStreamWriter failed")])
def test_a_disk_without_room_for_checkpoints(
    data: Data,
    undisturbed: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    """The run goes on; a stop would cost it the pass."""

    def full(record: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(checkpoint_module, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint_module, "CHECKPOINT_SHARE", math.inf)
    monkeypatch.setattr(torch, "save", full)
    probe(lens_of(), *data, tmp_path / "run", **ONE_PASS)
    assert_same_files(tmp_path / "run", undisturbed("ridge"))


def test_a_checkpoint_that_outlived_its_run(data: Data, undisturbed: Callable[[str], Path], tmp_path: Path) -> None:
    """Killed between the last probes and the end of the pass."""
    checkpoint = stopped_run(data, tmp_path / "run").read_bytes()
    probe(lens_of(), *data, tmp_path / "run", **ONE_PASS)
    (tmp_path / "run/probe" / CHECKPOINT).write_bytes(checkpoint)
    assert probe(lens_of(), *data, tmp_path / "run", **ONE_PASS).trained == 0
    assert_same_files(tmp_path / "run", undisturbed("ridge"))


def test_the_time_between_checkpoints(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At least a minute, and ten times what the last one took."""
    now, saved = 0.0, []
    monkeypatch.setattr("classlens.tasks.probes.checkpoint.time.perf_counter", lambda: now)
    folder = ProbeFolder(tmp_path)
    checkpoint = Checkpoint(folder, [ProbeTokens("attn_out", 0, 0, 5)])

    def save(record: Any, path: Path) -> None:
        nonlocal now
        saved.append(record["next"])
        now += 9.0  # seconds that writing takes

    monkeypatch.setattr(torch, "save", save)
    for image in range(30):
        now += 10.0
        checkpoint.save_if_due("sums", image, {})
    # 60 s after the start, then 90 s after each.
    assert saved == [5, 14, 23]


# Stops between passes


@pytest.mark.parametrize("moment", ["pass 1 of 4", "pass 3 of 4", "solving 2 of 2", "measuring"])
def test_stopped_between_passes(data: Data, undisturbed: Callable[[str], Path], tmp_path: Path, moment: str) -> None:
    def stop(now: Progress) -> None:
        if now.doing == moment:
            raise Stopped

    with pytest.raises(Stopped):
        probe(lens_of(), *data, tmp_path / "run", **FOUR_PASSES, report=stop)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run" / "probe").glob("*.safetensors")}
    # As a run that is killed while it writes leaves it.
    (tmp_path / "run" / "probe" / ".resid_post-02-0000-0005.safetensors.x1.partial").write_bytes(b"half")
    result = probe(lens_of(), *data, tmp_path / "run", **FOUR_PASSES)
    assert_same_files(tmp_path / "run", undisturbed("four passes"))
    for path in (tmp_path / "run" / "probe").glob("*.safetensors"):
        assert before.get(path.name, path.stat().st_mtime_ns) == path.stat().st_mtime_ns, "not trained again"
    expected = {"pass 1 of 4": (30, 4), "pass 3 of 4": (14, 2), "measuring": (0, 0)}
    if moment in expected:
        assert (result.trained, result.passes) == expected[moment]


def assert_close(out: Path, expected: Path) -> None:
    """The same probes up to the order of float64 sums."""
    weights, expected_weights = stored_probes(out), stored_probes(expected)
    assert weights.keys() == expected_weights.keys()
    for key in weights:
        np.testing.assert_allclose(weights[key][0], expected_weights[key][0], rtol=1e-5, atol=1e-7)


def test_resumed_with_another_amount_of_ram(data: Data, undisturbed: Callable[[str], Path], tmp_path: Path) -> None:
    def stop(now: Progress) -> None:
        if now.doing == "pass 2 of 4":
            raise Stopped

    with pytest.raises(Stopped):
        probe(lens_of(), *data, tmp_path / "run", **FOUR_PASSES, report=stop)
    result = probe(lens_of(), *data, tmp_path / "run", **{**FOUR_PASSES, "ram": "8GB"})
    assert (result.passes, result.trained) == (1, 22)
    assert_close(tmp_path / "run", undisturbed("four passes"))
    again = probe(lens_of(), *data, tmp_path / "run", **FOUR_PASSES)
    assert (again.passes, again.trained, again.run.before) == (0, 0, TEST)


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha": 2.0},
        {"alpha": "loo"},
        {"tokens": "image"},
        {"sites": ("attn_out",)},
        {"seed": 1},
        {"batch_size": 8},
        {"train_limit": 20},
    ],
)
def test_other_settings_are_refused(data: Data, undisturbed: Callable[[str], Path], changes: dict[str, Any]) -> None:
    out = undisturbed("four passes")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    message = refused(lambda: probe(lens_of(), *data, out, **{**FOUR_PASSES, **changes}))
    assert next(iter(changes)).replace("_", " ").replace("train limit", "images") in message
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_as_many_other_tokens_are_refused(data: Data, tmp_path: Path) -> None:
    """Four prefix tokens, and four image tokens."""
    module = VisionTransformer(
        img_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=3, num_classes=len(NAMES), reg_tokens=3
    )
    lens = classlens.load(module.eval(), class_names=list(NAMES), transform=paper_transform((16, 16)))
    options: dict[str, Any] = {"sites": "resid_post", **LOCAL}
    probe(lens, *data, tmp_path, tokens="prefix", **options)
    refused(lambda: probe(lens, *data, tmp_path, tokens="image", **options), "tokens")


def test_another_model_is_refused(data: Data, undisturbed: Callable[[str], Path]) -> None:
    other = classlens.load(
        zoo.build("cls", seed=5), class_names=list(NAMES), transform=lens_of().preprocessing.transform
    )
    refused(lambda: probe(other, *data, undisturbed("four passes"), **FOUR_PASSES), "weights")


def test_another_kind_is_added(data: Data, tmp_path: Path) -> None:
    options = {"sites": "resid_post", "train_limit": 8, "test_limit": 2, **LOCAL}
    for kind in ("ridge", "pooled"):
        probe(lens_of(), *data, tmp_path, kind=kind, **options)
    assert groups(tmp_path / STORE) == ["clean", "probe", "probe_pooled"]
    assert ProbeFolder(tmp_path / "probe_pooled").trained() == [
        ProbeTokens("resid_post", block, 1, 5) for block in range(BLOCKS)
    ]
