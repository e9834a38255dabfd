"""Batches of images: worker processes give the same ones, and problems of images stay with their image."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from classlens.data.loading import ImageReader, batch_ranges, load_batches
from classlens.data.open_dataset import open_dataset
from classlens.models.transforms import Preprocessing, paper_transform
from tests.data.pictures import folder, imagenet_s


def reader(
    spec: str,
    size: tuple[int, int] = (16, 16),
    mask_grid: tuple[int, int] | None = None,
    *,
    ignore_unknown: bool = False,
) -> ImageReader:
    return ImageReader(open_dataset(spec), Preprocessing(paper_transform(size)), (3, *size), mask_grid, ignore_unknown)


def test_batches_are_fixed_by_image_index() -> None:
    assert batch_ranges(range(64, 100), 16) == [range(64, 80), range(80, 96), range(96, 100)]
    assert batch_ranges(range(3), 64) == [range(3)]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order_and_whole(workers: int, tmp_path: Path) -> None:
    images = reader(folder(tmp_path, 7))
    ranges = [range(4, 7), range(4)]
    batches = list(load_batches(images, ranges, workers))
    assert [batch.images for batch in batches] == ranges
    for batch in batches:
        for row, index in enumerate(batch.images):
            expected = images.preprocessing(images.dataset.picture(index), "")
            np.testing.assert_array_equal(batch.pixels[row], expected)
        assert batch.readable.all()
        assert (batch.shows_class == -1).all()


def test_an_unreadable_image_is_black_and_reported(tmp_path: Path) -> None:
    images = reader(folder(tmp_path, 4))
    (tmp_path / images.dataset.names[2]).write_bytes(b"no image")
    batch = images.batch(range(1, 4))
    assert list(batch.problems) == [2]
    assert images.dataset.names[2] in batch.problems[2]
    assert batch.readable.tolist() == [True, False, True]
    assert not batch.array[1].any()
    assert batch.array[0].any()
    assert batch.array[2].any()


def test_a_transform_with_another_output_size(tmp_path: Path) -> None:
    images = replace(reader(folder(tmp_path, 1)), preprocessing=Preprocessing(paper_transform((16, 32))))
    assert "[3, 16, 32]" in images.batch(range(1)).problems[0]


def test_masks_on_the_grid(tmp_path: Path) -> None:
    """The left half shows the class; the last two of forty rows are to be ignored."""
    spec = imagenet_s(tmp_path, ["n01440764"], 2)
    (tmp_path / "ImageNetS919/validation-segmentation/n01440764/ILSVRC2012_val_n01440764_00000001.png").unlink()
    expected = np.zeros((40, 2), dtype=np.int8)
    expected[:38, 0] = 1
    for ignore, unknown in ((False, 0), (True, -1)):
        expected[38:] = unknown
        shows_class = reader(spec, (40, 48), (40, 2), ignore_unknown=ignore).batch(range(2)).shows_class
        np.testing.assert_array_equal(shows_class[0].reshape(40, 2), expected)
        assert (shows_class[1] == -1).all(), "an image without a mask"


START = f"""
import multiprocessing, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from dataclasses import replace
from classlens.data.loading import load_batches
from classlens.models.transforms import Preprocessing
from tests.data.test_loading import reader
def load(images):
    batches = load_batches(images, [range(2), range(2, 4), range(4, 5)], 1)
    return [int(batch.array.sum() * 100) for batch in batches], len(getattr(batches, "_workers", ()))
images = reader(sys.argv[1])
inner = images.preprocessing.transform
def own(image):
    return inner(image)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "workers", "said"),
    [
        ('multiprocessing.set_start_method("spawn"); print(*load(images))', 1, ""),
        ('multiprocessing.set_start_method("forkserver"); print(*load(images))', 1, ""),
        (
            'multiprocessing.set_start_method("spawn")\n'
            "print(*load(replace(images, preprocessing=Preprocessing(lambda image: inner(image)))))",
            0,
            "cannot be sent",
        ),
        (
            'multiprocessing.set_start_method("forkserver")\n'
            "print(*load(replace(images, preprocessing=Preprocessing(own))))",
            0,
            "defined in the script",
        ),
        ('print(*multiprocessing.get_context("fork").Pool(1).map(load, [images])[0])', 0, "daemonic"),
    ],
    ids=["spawn", "forkserver", "lambda", "script", "pool"],
)
def test_start_methods(program: str, workers: int, said: str, tmp_path: Path) -> None:
    """In a script without the usual guard; where processes cannot be had, this one decodes and says so in a line."""
    spec = folder(tmp_path / "images", 5)
    script = tmp_path / "script.py"
    script.write_text(START + program)
    done = subprocess.run([sys.executable, str(script), spec], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    sums = [int(reader(spec).batch(images).array.sum() * 100) for images in (range(2), range(2, 4), range(4, 5))]
    assert done.stdout == f"{sums} {workers}\n"
    assert said in done.stderr
    assert done.stderr.count("\n") == (1 if said else 0)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the signal at the end of a parent is Linux's")
def test_worker_processes_end_with_a_killed_parent(tmp_path: Path) -> None:
    """They wait to hand over a batch that nobody takes."""
    spec = folder(tmp_path, 40)
    program = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.data.test_loading import reader
from classlens.data.loading import load_batches
batches = load_batches(reader({spec!r}), [range(i, i + 1) for i in range(40)], 2)
next(batches)
print(*[worker.pid for worker in batches._workers], flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    limit = time.monotonic() + 30
    while any(_runs(pid) for pid in workers) and time.monotonic() < limit:
        time.sleep(0.01)
    assert not any(_runs(pid) for pid in workers)


def _runs(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text() and os.getpgid(pid) >= 0
    except (FileNotFoundError, ProcessLookupError):
        return False
