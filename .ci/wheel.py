"""Build wheel and sdist into FOLDER, in the place of older ones, and check them: ``python .ci/wheel.py FOLDER``."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEEDED = (
    "classlens/py.typed",
    "classlens/__main__.py",
    "classlens/models/builtin/*.safetensors",
    "classlens/models/builtin/*.md",
    "classlens/render/html/atlas/*.html",
    "classlens/render/html/atlas/*.css",
    "classlens/render/html/atlas/*.js",
    "classlens/render/html/atlas/block_page/*.js",
    "classlens/render/html/atlas/class_page/*.js",
    "classlens/render/html/atlas/head_page/*.js",
    "classlens/render/html/atlas/overview/*.js",
    "classlens/render/html/atlas/unit_page/*.js",
    "classlens/render/html/explore/*.css",
    "classlens/render/html/explore/*.html",
    "classlens/render/html/explore/*.js",
    "classlens/render/html/lattice/*.js",
    "classlens/render/html/paper.html",
    "classlens/render/html/report/*.html",
    "classlens/render/html/report/*.css",
    "classlens/render/html/report/*.js",
    "classlens/render/html/shared/*.css",
    "classlens/render/html/shared/*.js",
    "classlens/render/html/sweep/*.html",
    "classlens/render/html/sweep/*.css",
    "classlens/render/html/sweep/*.js",
    "classlens-*.dist-info/entry_points.txt",
    "classlens-*.dist-info/licenses/LICENSE",
)
FILES = {"CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "README.md", "pyproject.toml"}
TOPS = FILES | {"src", "tests", "docs", "PKG-INFO", ".gitignore"}
MAX_MEGABYTES = 12


def build(folder: Path) -> tuple[Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("classlens-*.whl"), *folder.glob("classlens-*.tar.gz")]:
        old.unlink()
    subprocess.check_call([sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=ROOT)
    (wheel,), (sdist,) = folder.glob("classlens-*.whl"), folder.glob("classlens-*.tar.gz")
    return wheel, sdist


def faults(wheel: Path, sdist: Path) -> list[str]:
    """One sentence for each missing, unexpected or large file."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    sentences = [f"{wheel.name} has no {pattern}" for pattern in NEEDED if not any(fnmatch(n, pattern) for n in names)]
    source = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*") if path.is_file()}
    source = {name for name in source if "__pycache__" not in name}
    sentences += [f"{wheel.name} has no {name}" for name in sorted(source - set(names))]
    sentences += [f"{wheel.name} holds {name}" for name in names if not name.startswith(("classlens/", "classlens-"))]
    with tarfile.open(sdist) as archive:
        tops = {member.name.split("/")[1] for member in archive.getmembers()}
    sentences += [f"{sdist.name} holds {top}" for top in sorted(tops - TOPS)]
    for path in (wheel, sdist):
        if path.stat().st_size > MAX_MEGABYTES * 1e6:
            sentences.append(f"{path.name} is larger than {MAX_MEGABYTES} MB")
    return sentences


def runs(wheel: Path) -> str | None:
    """The fault of `classlens inspect` with the files of the wheel alone, on an image of noise."""
    with tempfile.TemporaryDirectory() as scratch:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(Path(scratch, "wheel"))
        program = (
            "import numpy, runpy, sys, classlens, PIL.Image as I; assert sys.argv[1] in classlens.__file__;"
            "I.fromarray(numpy.random.default_rng(0).integers(0, 256, (48, 64, 3), 'uint8')).save('noise.png');"
            "sys.argv[1:] = ['inspect', 'noise.png', '--out', 'out'];"
            "runpy.run_module('classlens', run_name='__main__')"
        )
        environment = os.environ | {"PYTHONPATH": str(Path(scratch, "wheel")), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-c", program, scratch]
        done = subprocess.run(command, cwd=scratch, env=environment, text=True, capture_output=True)
        if done.returncode or not Path(scratch, "out", "report.html").is_file():
            return f"`classlens inspect` of the unpacked {wheel.name} failed: {done.stdout}{done.stderr}"
    return None


if __name__ == "__main__":
    wheel, sdist = build(Path(sys.argv[1]).resolve())
    sentences = faults(wheel, sdist)
    sentences += [fault for fault in [runs(wheel)] if fault]
    if sentences:
        sys.exit("\n".join(sentences))
    for path in (wheel, sdist):
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, complete")
