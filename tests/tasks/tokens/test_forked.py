"""A process that was forked after torch and a store were used: no thread of its parent is waited for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.pictures import folder

PROGRAM = """
import os, sys
import classlens
from classlens import ClasslensError, measure

data, first, second = sys.argv[1:]
measure("builtin:cifar10", data, first, workers=0, limit=20)
tree = classlens.open_store(first)
before = int(tree["clean"]["rank"].values.sum())
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
assert int(tree["clean"]["rank"].values.sum()) == before
assert int(classlens.open_store(first)["clean"]["rank"].values.sum()) == before
print(measure("builtin:cifar10", data, second, workers=0, limit=20).images)
try:
    measure("builtin:cifar10", data, first, workers=0, limit=20, conditions="no_cls")
except ClasslensError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks are Unix's")
def test_a_forked_process_measures_and_reads(tmp_path: Path) -> None:
    data = folder(tmp_path / "images", 20)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, data, str(tmp_path / "first.zarr"), str(tmp_path / "second.zarr")],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    images, refusal = done.stdout.splitlines()
    assert images == "20"
    assert refusal.startswith("this run needs 2 threads of torch, and a process that was forked")
