"""``classlens probe`` and ``classlens tune`` as they are typed: what they write, what they say, their errors."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner, Result

import classlens
from classlens.cli import app
from classlens.store.open_store import open_group
from classlens.store.probe_folder import ProbeFolder
from tests.data.pictures import assert_same, folder, groups
from tests.refusals import complaints

MODEL = ("--model", "builtin:cifar10")
QUICK = ("--sites", "resid_post", "--tokens", "cls", "--workers", "0")
BLOCKS = 6


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, args)], env={"COLUMNS": "160"})


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> str:
    return folder(tmp_path_factory.mktemp("data") / "images", 30)


@pytest.fixture(scope="module")
def test(tmp_path_factory: pytest.TempPathFactory) -> str:
    return folder(tmp_path_factory.mktemp("data") / "others", 20)


@pytest.fixture(scope="module")
def lens(train: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lens") / "lens.safetensors"
    assert run("tune", *MODEL, "--data", train, "--out", out, "--epochs", "1", "--workers", "0").exit_code == 0
    return out


def test_probes_from_a_command(train: str, test: str, tmp_path: Path) -> None:
    out = tmp_path / "probes"
    some = (*MODEL, "--train", train, "--test", test, "--out", out, *QUICK)
    result = run("probe", *some)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Measured 20 images in ")
    assert lines[1].startswith("Classes: 2 images of each of 10 (")
    assert lines[2] == f"Store: {out}/probes.zarr"
    assert re.fullmatch(r"Trained 6 probes in \d+\.\d s, 1 passes over the training images\.", lines[3])
    assert lines[4].strip() == "Share with the class on top, resid_post"
    clean, probed = (open_group(out / "probes.zarr", name).load() for name in ("clean", "probe"))
    for block in range(BLOCKS):
        shares = [float((one["rank"].values[:, 0, block, 0] == 0).mean()) for one in (clean, probed)]
        row = next(line for line in lines if line.startswith(f"│ {block:>5} "))
        assert f"{100 * shares[0]:.1f} %" in row
        assert f"{100 * shares[1]:.1f} %" in row
    assert {float(one) for _, some_of in ProbeFolder(out / "probe").alphas() for one in some_of} == {1.0}
    again = run("probe", *some, "--log-json")
    assert again.exit_code == 0, again.output
    records = [json.loads(line) for line in again.stdout.splitlines()]
    assert [one["event"] for one in records][-1] == "finished"
    assert records[-1]["before"] == 20


def test_other_probes_are_added(train: str, test: str, tmp_path: Path, lens: Path) -> None:
    out = tmp_path / "probes"
    some = (*MODEL, "--train", train, "--test", test, "--out", out, "--sites", "resid_post", "--workers", "0")
    assert run("probe", *some, "--pooled", "--alpha", "loo", "--tuned-lens", lens).exit_code == 0
    result = run("probe", *some, "--logistic", "--tokens", "cls", "--train-per-class", "2", "--alpha", "0.5")
    assert result.exit_code == 0, result.output
    assert groups(out / "probes.zarr") == ["clean", "probe_logistic", "probe_pooled", "tuned_lens"]
    assert "probe_pooled" in result.stdout
    assert {float(one) for _, some_of in ProbeFolder(out / "probe_logistic").alphas() for one in some_of} == {0.5}
    found = run("analyze", out / "probes.zarr", "--out", tmp_path / "results", "--experiments", "decoders")
    assert found.exit_code == 0, found.output
    assert "probe_pooled" in (tmp_path / "results" / "tables" / "decoders.csv").read_text()
    drawn = run("figures", tmp_path / "results", "--out", tmp_path / "figures")
    assert drawn.exit_code == 0, drawn.output
    assert {"decoders_image.png", "decoders_cls.png"} <= {path.name for path in (tmp_path / "figures").iterdir()}


def test_embeddings_alone(train: str, test: str, tmp_path: Path) -> None:
    given = (*MODEL, "--train", train, "--test", test, "--out", tmp_path / "probes", "--workers", "0")
    result = run("probe", *given, "--sites", "embed", "--tokens", "image")
    assert result.exit_code == 0, result.output
    assert "Share with the class on top, embed" in result.stdout


def test_passes_of_little_memory(train: str, test: str, tmp_path: Path) -> None:
    given = (*MODEL, "--train", train, "--test", test, "--out", tmp_path / "probes", *QUICK)
    result = run("probe", *given, "--ram", "0.5MB")
    assert result.exit_code == 0, result.output
    passes = re.search(r"(\d+) passes", result.stdout)
    assert passes is not None
    assert 1 < int(passes[1]) <= BLOCKS


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--pooled", "--logistic"), "--pooled and --logistic were both given"),
        (("--alpha", "small"), "alpha 'small' cannot be used"),
        (("--alpha", "0"), "alpha 0.0 cannot be used"),
        (("--sites", "resid_pots"), "did you mean 'resid_post'"),
        (("--tokens", "dist"), "tokens 'dist' is not known"),
        (("--ram", "lots"), "ram 'lots' is no amount of RAM"),
        (("--ram", "1kB"), "is too little"),
        (("--train", "folder:/nowhere"), "is not a folder"),
        (("--test-split", "validation"), "has no split 'validation'"),
        (("--batch-size", "many"), "batch_size 'many' cannot be used"),
        (("--tuned-lens", "/nowhere.safetensors"), "cannot be read"),
        (("--train-limit", "0"), "limit 0 cannot be used"),
    ],
)
@pytest.mark.wrong_types
def test_mistakes_are_one_line_and_exit_with_2(
    train: str, test: str, tmp_path: Path, more: tuple[str, ...], says: str
) -> None:
    result = run("probe", *MODEL, "--train", train, "--test", test, "--out", tmp_path / "out", *QUICK, *more)
    assert result.exit_code == 2
    assert says in result.stderr
    assert len(complaints(result.stderr)) == 1
    assert not (tmp_path / "out" / "probes.zarr").exists()


def test_training_images_are_not_tested(train: str, tmp_path: Path) -> None:
    result = run("probe", *MODEL, "--train", train, "--test", train, "--out", tmp_path / "out", *QUICK)
    assert result.exit_code == 2
    assert "30 images" in result.stderr
    assert "both for training and test" in result.stderr


def test_places_that_cannot_be_written(train: str, test: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("dear")
    for out in (tmp_path / "file", tmp_path / "file" / "probes"):
        result = run("probe", *MODEL, "--train", train, "--test", test, "--out", out, *QUICK)
        assert result.exit_code == 2, result.output
    result = run("tune", *MODEL, "--data", train, "--out", tmp_path / "file" / "a.safetensors", "--workers", "0")
    assert result.exit_code == 2, result.output
    assert len(complaints(result.stderr)) == 1
    assert (tmp_path / "file").read_text() == "dear"


def trained_with(lens: Path) -> dict[str, Any]:
    with safe_open(lens, framework="np") as opened:
        found: dict[str, Any] = json.loads(opened.metadata()["training"])
    return found


def test_a_tuned_lens_from_a_command(train: str, test: str, lens: Path, tmp_path: Path) -> None:
    again = run("tune", *MODEL, "--data", train, "--out", lens, "--epochs", "1", "--workers", "0")
    assert again.exit_code == 0, again.output
    lines = again.stdout.splitlines()
    assert "3 held-out images" in lines[0]
    assert lines[-1] == f"Tuned lens: {lens}"
    given = ("tune", *MODEL, "--data", train, "--out", tmp_path / "new.safetensors", "--workers", "0")
    logged = run(*given, "--epochs", "2", "--tokens", "pooled", "--seed", "5", "--limit", "20", "--log-json")
    assert logged.exit_code == 0, logged.output
    records = [json.loads(line) for line in logged.stdout.splitlines()]
    assert [one["event"] for one in records] == ["progress"] * (len(records) - 1) + ["finished"]
    assert {one["doing"] for one in records[:-1]} == {
        "running the model",
        "epoch 1 of at most 2",
        "epoch 2 of at most 2",
    }
    last = records[-1]
    assert (last["file"], last["images"], last["held_out"]) == (str(tmp_path / "new.safetensors"), 18, 2)
    assert len(last["blocks"]) == BLOCKS
    assert last["blocks"][0]["tuned"] < last["blocks"][0]["plain"]
    asked = trained_with(tmp_path / "new.safetensors")
    assert (asked["tokens"], asked["seed"], asked["epochs"], asked["control"]) == ("pooled", 5, 2, False)
    more = ("--control", "--epochs", "1", "--learning-rate", "0.01", "--held-out", "0.3", "--patience", "2")
    other = tmp_path / "control.safetensors"
    assert run("tune", *MODEL, "--data", train, "--out", other, "--workers", "0", *more).exit_code == 0
    asked = trained_with(other)
    wanted = {"tokens": "all", "control": True, "learning_rate": 0.01, "held_out": 0.3, "patience": 2, "seed": 0}
    assert {key: asked[key] for key in wanted} == wanted
    tuned = classlens.load("builtin:cifar10").with_tuned_lens(lens)
    measured = run(
        *("measure", *MODEL, "--data", test, "--out", tmp_path / "run.zarr", "--limit", "8"),
        *("--conditions", "clean,tuned_lens", "--tuned-lens", lens, "--workers", "0"),
    )
    assert measured.exit_code == 0, measured.output
    found = open_group(tmp_path / "run.zarr", "tuned_lens").load()
    root = Path(test.removeprefix("folder:"))
    own = tuned.facts([root / name for name in found["image"].values], "mlp_out", found["label"].values)
    np.testing.assert_array_equal(found["rank"].sel(site="mlp_out"), own["rank"].values[:, 0])


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--tokens", "cls"), "tokens 'cls' is not known"),
        (("--epochs", "0"), "epochs 0 cannot be used"),
        (("--held-out", "1"), "held_out 1.0 cannot be used"),
        (("--learning-rate", "0"), "learning_rate 0.0"),
        (("--ram", "lots"), "ram 'lots'"),
        (("--data", "flder:/x"), "did you mean 'folder:ROOT'?"),
        (("--limit", "1"), "give at least 2"),
    ],
)
@pytest.mark.wrong_types
def test_mistakes_of_tuning(train: str, tmp_path: Path, more: tuple[str, ...], says: str) -> None:
    result = run("tune", *MODEL, "--data", train, "--out", tmp_path / "lens.safetensors", *more)
    assert result.exit_code == 2
    assert says in result.stderr
    assert len(complaints(result.stderr)) == 1
    assert not list(tmp_path.iterdir())


def test_a_lens_of_other_settings_or_another_name(train: str, lens: Path, tmp_path: Path) -> None:
    before = lens.read_bytes()
    result = run("tune", *MODEL, "--data", train, "--out", lens, "--epochs", "2")
    assert result.exit_code == 2
    assert "epochs 1, not 2" in result.stderr.replace("\n", " ")
    assert lens.read_bytes() == before
    result = run("tune", *MODEL, "--data", train, "--out", tmp_path / "lens.pt")
    assert result.exit_code == 2
    assert "ending in .safetensors" in result.stderr


def test_faithfulness_by_ranks(train: str, test: str, tmp_path: Path) -> None:
    given = ("--sites", "resid_post", "--workers", "0", "--pooled")
    made = run("probe", *MODEL, "--train", train, "--test", test, "--out", tmp_path / "probes", *given)
    assert made.exit_code == 0, made.output
    name = "stored_rank:condition=probe_pooled"
    result = run(
        *("evaluate", *MODEL, "--data", test, "--out", tmp_path / "out", "--methods", f"random,{name}"),
        *(
            "--metrics",
            "removal",
            "--steps",
            "3",
            "--permutations",
            "1",
            "--ranks",
            tmp_path / "probes" / "probes.zarr",
        ),
    )
    assert result.exit_code == 0, result.output
    assert name in (tmp_path / "out" / "results" / "scores.csv").read_text()
    result = run("evaluate", *MODEL, "--data", test, "--out", tmp_path / "no", "--methods", name)
    assert result.exit_code == 2
    assert "--ranks" in result.stderr


def alone() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}


@pytest.mark.slow
def test_probes_that_were_killed_go_on(train: str, test: str, tmp_path: Path) -> None:
    """``kill -9`` once some passes are written."""
    out = tmp_path / "probes"
    given = [*MODEL, "--train", train, "--test", test, "--sites", "resid_post", "--workers", "0", "--ram", "9MB"]
    command = [sys.executable, "-m", "classlens", "probe", *given, "--out", str(out)]
    process = subprocess.Popen(command, env=alone(), stdout=subprocess.DEVNULL)
    limit = time.monotonic() + 60
    while len(list((out / "probe").glob("*.safetensors"))) < 3 and time.monotonic() < limit:
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = {path: path.stat().st_mtime_ns for path in (out / "probe").glob("*.safetensors")}
    assert not (out / "probes.zarr").exists()
    for place in (out, tmp_path / "undisturbed"):
        result = run("probe", *given, "--out", place)
        assert result.exit_code == 0, result.output
        assert ("Trained 390 probes" in result.stdout) == (place != out)
    names = sorted(path.name for path in (tmp_path / "undisturbed" / "probe").iterdir())
    assert sorted(path.name for path in (out / "probe").iterdir()) == names
    for name in names:
        assert (out / "probe" / name).read_bytes() == (tmp_path / "undisturbed" / "probe" / name).read_bytes()
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    assert_same(out / "probes.zarr", tmp_path / "undisturbed" / "probes.zarr")
