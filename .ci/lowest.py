"""Make an environment with the lowest versions that pyproject.toml allows: ``python .ci/lowest.py FOLDER [EXTRA...]``.

Without extras, all dependencies have their lowest versions. With extras (model libraries, which need newer versions of
other dependencies), only these extras and timm have.

The new environment sees the packages of the one that runs this script, and installs only those whose versions differ.
torch and torchvision (gigabytes) are shared, in the versions installed there.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tomllib
import venv
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED = ("torch", "torchvision")
# The new environment's Python runs this: it must find the pinned versions.
CHECK = """
import sys
from importlib.metadata import version
from packaging.version import Version
for name, number in (pin.split("==") for pin in sys.argv[1:]):
    if Version(version(name)) != Version(number):
        sys.exit(f"the environment has {name} {version(name)}, not {number}")
"""


def pins(extras: list[str]) -> list[str]:
    """``name==lowest`` for every dependency to pin, from the ``>=`` that each must declare."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    dependencies = project["dependencies"] + [
        each for extra in ("store", "analysis", "probes", "explore") for each in optional[extra]
    ]
    if extras:
        timm = [dependency for dependency in dependencies if dependency.startswith("timm>=")]
        libraries = [dependency for extra in extras for dependency in optional[extra]]
        dependencies = [*timm, *libraries, *(f"{name}>=0" for name in SHARED)]
    lowest = dict(dependency.split(">=") for dependency in dependencies if not dependency.startswith("classlens["))
    return [f"{name}=={version(name) if name in SHARED else number}" for name, number in lowest.items()]


def make(folder: Path, extras: list[str]) -> None:
    constraints = "\n".join(pins(extras)) + "\n"
    outer = sysconfig.get_path("purelib")
    key = sha256("\n".join([constraints, outer, str(ROOT), sys.version, Path(__file__).read_text()]).encode())
    stamp = folder / f".lowest-{key.hexdigest()[:16]}"
    if stamp.exists():
        return
    venv.create(folder, clear=(folder / "pyvenv.cfg").exists(), symlinks=True, with_pip=False)
    python = str(folder / "bin" / "python")
    inner = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
    # addsitedir, unlike a plain line, also reads the .pth files of the outer environment, and comes last on the path.
    Path(inner.strip(), "outer.pth").write_text(f"import site; site.addsitedir({outer!r})\n")
    listed = folder / "constraints.txt"
    listed.write_text(constraints)
    install = [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--no-warn-conflicts"]
    subprocess.check_call([*install, "-c", str(listed), "-e", f"{ROOT}[{','.join(['test', *extras])}]"])
    subprocess.check_call([python, "-c", CHECK, *pins(extras)])
    stamp.touch()


if __name__ == "__main__":
    make(Path(sys.argv[1]).resolve(), sys.argv[2:])
