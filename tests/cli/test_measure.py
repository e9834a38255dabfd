"""``classlens measure`` as it is typed: its progress, its outcome, its errors."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from classlens import measure
from classlens.cli import app
from classlens.engine.progress import MeasureResult, Progress
from classlens.render.terminal.progress import speed, watched
from classlens.store.open_store import open_group
from tests.data.pictures import folder
from tests.refusals import complaints

MODEL = ("--model", "builtin:cifar10")


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(app, ["measure", *map(str, args)], env={"COLUMNS": "120"})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return folder(tmp_path_factory.mktemp("data") / "images", 70)


def test_a_run_and_its_outcome(data: str, tmp_path: Path) -> None:
    out = tmp_path / "run.zarr"
    some = (*MODEL, "--data", data, "--out", out, "--per-class", "2", "--memories")
    result = run(*some, "--conditions", "clean, self_only")
    assert result.exit_code == 0, result.output
    first, classes, last = result.stdout.splitlines()
    assert classes.startswith("Classes: 2 images of each of 10 (")
    assert first.startswith("Measured 20 images in ")
    assert "images/s" in first
    assert last == f"Store: {out}"
    assert open_group(out, "self_only").sizes["image"] == 20
    again = run(*MODEL, "--data", data, "--out", out, "--per-class", "2", "--conditions", "clean", "--memories")
    assert "Measured 0 images" in again.stdout
    assert "(20 were measured before)" in again.stdout


def test_lines_for_machines(data: str, tmp_path: Path) -> None:
    bad = tmp_path / "images"
    folder(bad, 5)
    (bad / "cat" / "0003.png").write_bytes(b"no image")
    result = run(*MODEL, "--data", f"folder:{bad}", "--out", tmp_path / "run.zarr", "--log-json", "--skip-bad")
    assert result.exit_code == 0, result.output
    start, progress, finished = map(json.loads, result.stdout.splitlines())
    assert (start["event"], start["done"], start["images"]) == ("progress", 0, 5)
    assert (progress["done"], progress["skipped"]) == (5, 1)
    assert progress["images_per_second"] > 0
    assert finished["event"] == "finished"
    assert list(finished["skipped"]) == ["cat/0003.png"]
    told = run(*MODEL, "--data", f"folder:{bad}", "--out", tmp_path / "run.zarr", "--skip-bad")
    assert "Skipped cat/0003.png: image" in told.stdout


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--data", "flder:/x"), "did you mean 'folder:ROOT'?"),
        (("--data", "folder:/nowhere"), "is not a folder"),
        (("--batch-size", "many"), "batch_size 'many' cannot be used"),
        (("--transform", "mine"), "transform 'mine' is not known"),
        (("--dtype", "int8"), "dtype 'int8' is not known"),
        (("--engine", "spark"), "engine 'spark' is not known"),
        (("--per-class", "0"), "per_class 0 cannot be used"),
        (("--split", "validation"), "has no split 'validation'"),
    ],
)
@pytest.mark.wrong_types
def test_mistakes_are_one_line_and_exit_with_2(data: str, tmp_path: Path, more: tuple[str, str], says: str) -> None:
    result = run(*MODEL, "--data", data, "--out", tmp_path / "run.zarr", *more)
    assert result.exit_code == 2
    assert says in result.stderr
    assert len(complaints(result.stderr)) == 1
    assert not list(tmp_path.iterdir())


def test_classes_that_do_not_match(tmp_path: Path) -> None:
    data = folder(tmp_path / "images", 6, classes=["ant", "bee", "cow", "dodo", "emu", "fox"])
    result = run(*MODEL, "--data", data, "--out", tmp_path / "run.zarr")
    assert result.exit_code == 2
    assert "'ant', 'bee', 'cow', 'dodo', 'emu' …" in result.stderr
    assert "'airplane', 'automobile', 'bird', 'cat', 'deer' …" in result.stderr


@pytest.mark.slow
def test_an_interrupt_tells_what_is_saved(data: str, tmp_path: Path) -> None:
    given = [*MODEL, "--data", data, "--out", str(tmp_path / "run.zarr"), "--batch-size", "2", "--workers", "0"]
    # Ctrl-C as soon as measuring begins: the handler that Python starts with.
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program += "from classlens.cli import app; app()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "measure", *given, "--conditions", "clean,self_only,no_cls"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    # The last that is written before measuring begins; an interrupt within zarr's own threads is told by them as well.
    last = tmp_path / "run.zarr" / "no_cls" / "zarr.json"
    while not (last.exists() and '"coordinates"' in last.read_text()):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert not (tmp_path / ".run.zarr.lock").exists()


def test_the_speed_and_what_remains() -> None:
    assert speed(Progress(0, 100, 0, 0, 0.0)) == ""
    assert speed(Progress(60, 100, 20, 0, 4.0)) == "10.0 images/s, 0:04 left"
    assert speed(Progress(1, 40_001, 0, 0, 0.5)) == "2.0 images/s, 5:33:20 left"
    assert speed(Progress(0, 26, 0, 0, 10.0, under_way=2.0)) == "5.0 s/image, 2:00 left"


def test_a_first_estimate_of_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    with watched(None, "out.zarr") as (report, _):
        report(Progress(0, 26, 0, 0, 0.0))
        report(Progress(0, 26, 0, 0, 10.0, under_way=1.0))
        report(Progress(1, 26, 0, 0, 10.0))
    assert capsys.readouterr().err == "This takes about 4 min.\n"
    with watched(None, "out.zarr") as (report, _):
        report(Progress(20, 26, 0, 0, 10.0))
    assert capsys.readouterr().err == ""


def test_lines_are_whole_json() -> None:
    lines = io.StringIO()
    with watched(lines, "out.zarr") as (report, finished):
        report(Progress(64, 128, 0, 1, 2.0))
        finished(MeasureResult("out.zarr", 128, 0, {"a": "b"}, 4.0, 16))
    first, last = map(json.loads, lines.getvalue().splitlines())
    assert first["remaining_seconds"] == 2.0
    assert last["skipped"] == {"a": "b"}


@pytest.mark.parametrize(
    ("classes", "unlabeled", "said"),
    [
        ({"ant": 2, "bee": 2}, 0, "Classes: 2 images of each of 2 (ant, bee)."),
        ({"ant": 1, "bee": 3}, 1, "Classes: 1 to 3 images of each of 2 (ant 1, bee 3).\n1 image has no label"),
        (
            {str(number): 1 for number in range(12)},
            0,
            "Classes: 1 image of each of 12 (0, 1, 2, 3, 4, 5, 6, 7, 8, 9 an",
        ),
        ({}, 4, "The images have no labels: the class of interest is the one that the model predicts."),
    ],
)
def test_the_outcome_says_what_was_measured(
    classes: dict[str, int], unlabeled: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = MeasureResult("out.zarr", 4, 0, {}, 4.0, 16, classes=classes, unlabeled=unlabeled)
    with watched(None, "out.zarr") as (_, finished):
        finished(outcome)
    assert said in capsys.readouterr().out


def test_images_without_labels_are_counted(tmp_path: Path) -> None:
    image = folder(tmp_path / "images", 2)
    flat = [str(path) for path in Path(image.removeprefix("folder:")).rglob("*.png")]
    (tmp_path / "list.txt").write_text("\n".join(flat))
    outcome = measure("builtin:cifar10", f"list:{tmp_path / 'list.txt'}", tmp_path / "run.zarr", sites="embed")
    assert (outcome.classes, outcome.unlabeled) == ({}, 2)
    assert open_group(tmp_path / "run.zarr", "clean").attrs["unlabeled_images"] == 2
