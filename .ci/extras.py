"""Install the wheel with each extra into an environment of its own, and run commands: ``python .ci/extras.py FOLDER``.

FOLDER holds the wheel (``.ci/wheel.py``). An environment holds what the metadata of the wheel asks for and no more,
as links to packages of the environment that runs this script: nothing is downloaded, and torch is there once. pip
installs the wheel without an index.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Sequence
from email import message_from_bytes
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

MODEL = ("--model", "builtin:cifar10")
DATA = ("--data", "folder:photos")
# By extras: commands that run, and commands that name the extra which is missing.
RUNS: dict[str, tuple[list[Sequence[str]], dict[str, Sequence[str]]]] = {
    "": (
        [("inspect", "photos/cat/0.png"), ("models", "--search", "vit_tiny"), ("check", "builtin:cifar10")],
        {"store": ("measure", *MODEL, *DATA, "--out", "run.zarr"), "explore": ("explore",)},
    ),
    "store": (
        [("measure", *MODEL, *DATA, "--out", "run.zarr"), ("check-store", "run.zarr")],
        {"analysis": ("analyze", "run.zarr")},
    ),
    "probes": (
        [
            (
                "probe",
                *MODEL,
                "--train",
                DATA[1],
                "--test",
                "folder:others",
                "--logistic",
                "--sites",
                "resid_post",
                "--out",
                "p",
            )
        ],
        {"analysis": ("evaluate", *MODEL, *DATA, "--out", "e")},
    ),
    "analysis": (
        [("measure", *MODEL, *DATA, "--out", "run.zarr"), ("analyze", "run.zarr", "--experiments", "evolution")],
        {"explore": ("explore", "run.zarr")},
    ),
    "explore": (
        [("measure", *MODEL, *DATA, "--out", "run.zarr"), ("explore", "run.zarr", "--export", "site")],
        {},
    ),
    "all": ([("--version",)], {}),
}


def requirements(wheel: Path) -> list[Requirement]:
    """Requirements of the wheel, with markers of its extras."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = message_from_bytes(archive.read(name))
    return [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]


def closure(wheel: Path, extras: str) -> set[str]:
    """Names of all distributions that the wheel needs, by metadata alone."""
    own = requirements(wheel)
    seen: set[tuple[str, str]] = set()
    pending = [("classlens", extra) for extra in ["", *filter(None, extras.split(","))]]
    while pending:
        name, extra = pending.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        texts = distribution(name).requires or [] if name != "classlens" else []
        for requirement in own if name == "classlens" else map(Requirement, texts):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                needed = canonicalize_name(requirement.name)
                pending += [(needed, each) for each in ("", *requirement.extras)]
    return {name for name, _ in seen} - {"classlens"}


def link(names: set[str], folder: Path) -> None:
    """Links in ``folder`` to the top folders and files of distributions, their metadata included."""
    for name in names:
        package = distribution(name)
        for top in {file.parts[0] for file in package.files or []} - {"..", "__pycache__"}:
            target = folder / top
            if not target.exists():
                target.symlink_to(str(package.locate_file(top)))


def make(folder: Path, wheel: Path, extras: str) -> Path:
    """The Python of a new environment with the wheel and its extras."""
    venv.create(folder, symlinks=True, with_pip=False)
    python = folder / "bin" / "python"
    inner = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
    link(closure(wheel, extras), Path(inner.strip()))
    target = f"{wheel}[{extras}]" if extras else str(wheel)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "--quiet"]
    subprocess.check_call([*pip, "install", "--no-index", "--no-compile", target])
    subprocess.check_call([*pip, "check"])
    return python


def call(python: Path, args: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HF_HUB_OFFLINE": "1", "HOME": str(folder)}
    command = [str(python.with_name("classlens")), *args]
    return subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True)


def faults(wheel: Path, extras: str, scratch: Path) -> list[str]:
    """One sentence for each command that fails, or that runs without its extra."""
    python = make(scratch / "venv", wheel, extras)
    program = (
        "import numpy, pathlib, PIL.Image as I\n"
        "random = numpy.random.default_rng(0)\n"
        "for name in ('photos/cat', 'photos/dog', 'others/cat', 'others/dog'):\n"
        "    pathlib.Path(name).mkdir(parents=True)\n"
        "    for number in range(3):\n"
        "        I.fromarray(random.integers(0, 256, (48, 64, 3), 'uint8')).save(f'{name}/{number}.png')\n"
    )
    subprocess.check_call([python, "-c", program], cwd=scratch)
    label = f"classlens[{extras}]" if extras else "classlens"
    sentences = []
    runs, missing = RUNS[extras]
    for args in runs:
        done = call(python, args, scratch)
        if done.returncode:
            sentences.append(f"{label}: {' '.join(args)} failed: {done.stdout}{done.stderr}")
    for extra, args in missing.items():
        before = sorted(scratch.iterdir())
        done = call(python, args, scratch)
        remedy = f"pip install 'classlens[{extra}]'"
        if done.returncode != 2 or remedy not in done.stderr or sorted(scratch.iterdir()) != before:
            sentences.append(f"{label}: {' '.join(args)} does not name {remedy}: {done.stdout}{done.stderr}")
    return sentences


if __name__ == "__main__":
    (wheel,) = Path(sys.argv[1]).resolve().glob("classlens-*.whl")
    sentences = []
    for extras in RUNS:
        with tempfile.TemporaryDirectory() as scratch:
            sentences += faults(wheel, extras, Path(scratch))
    if sentences:
        sys.exit("\n".join(sentences))
    print(f"{wheel.name}: installs and runs with each of {len(RUNS)} sets of extras")
