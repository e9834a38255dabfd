"""Time until a fresh process shows something: the import, help texts, and the report of a photo.

    python benchmarks/startup.py --repeats 5

Prints JSON: medians of wall and CPU seconds of each process, of a Python that does nothing as well. ``libraries``
imports torch, torchvision, timm, xarray and matplotlib, without which there is no report; ``ratio`` is CPU time in
relation to it. Tasks take turns, so that other work on the machine meets all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image
from typer.main import get_command

from classlens.cli import app

LIBRARIES = "import torch, torchvision, timm, xarray, matplotlib.figure"


def seconds(arguments: list[str], folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds of a process of Python."""
    start = time.perf_counter()
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, *arguments],
        os.environ | {"HF_HUB_OFFLINE": "1"},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, output, folder / "output", os.O_WRONLY | os.O_CREAT, 0o600) for output in (1, 2)
        ],
    )
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - start
    if status:
        raise RuntimeError(f"{arguments} failed: {(folder / 'output').read_text()}")
    return wall, usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((640, 480), Image.Resampling.BICUBIC).save(folder / "photo.jpg")
        command = ["-m", "classlens"]
        tasks = {
            "python": ["-c", "pass"],
            "import classlens": ["-c", "import classlens"],
            "--version": [*command, "--version"],
            "--help": [*command, "--help"],
            **{f"{name} --help": [*command, name, "--help"] for name in get_command(app).commands},  # type: ignore[attr-defined]
            "libraries": ["-c", LIBRARIES],
            "inspect": [*command, "inspect", str(folder / "photo.jpg"), "--out", str(folder / "report")],
        }
        for arguments in tasks.values():  # fills the caches of the disk and of compiled modules
            seconds(arguments, folder)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
        for _ in range(args.repeats):
            for name, arguments in tasks.items():
                times[name].append(seconds(arguments, folder))
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in times.items()}
    report = {
        name: {"wall": round(wall, 3), "cpu": round(cpu, 3), "ratio": round(cpu / medians["libraries"][1], 3)}
        for name, (wall, cpu) in medians.items()
    }
    about = {"machine": platform.machine(), "python": platform.python_version(), "torch": version("torch")}
    print(
        json.dumps(
            {**about, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "seconds": report}, indent=1
        )
    )


if __name__ == "__main__":
    main()
