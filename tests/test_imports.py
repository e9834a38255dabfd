"""Arrows of imports point one way, heavy libraries stay behind one door, and no file grows too long."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import classlens

SOURCE = Path(classlens.__file__).parent
MAX_LINES = 400
TEXT = {".py", ".js", ".css", ".html", ".md", ".toml"}


@dataclass(frozen=True)
class Layout:
    """What may import what: a table that the checks below hold a folder of modules to."""

    package: str
    layers: tuple[frozenset[str], ...]
    """Lowest first. A part imports itself and any part of an earlier layer, not its neighbors in the same layer."""
    everywhere: frozenset[str] = frozenset()
    """Parts that any other may import; they import none themselves."""
    barred: dict[str, frozenset[str]] = field(default_factory=dict)
    """Libraries that a part must not import."""
    doors: dict[str, str] = field(default_factory=dict)
    """Libraries that only the files of a pattern import."""
    calls: dict[str, str] = field(default_factory=dict)
    """Names that only the files of a pattern mention."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


CLASSLENS = Layout(
    package="classlens",
    layers=tuple(
        map(
            _names,
            [
                "core",
                "models",
                "hooks",
                "explain",
                "lens",
                "runs",
                "probes faithful",
                "experiments",
                "present",
                "__init__",  # the public names, from `lens` mostly; only the command line looks at them from inside
                "cli",
                "__main__",
            ],
        )
    ),
    everywhere=_names("errors registry"),
    barred={
        # No model library, no file library: arrays and tensors alone.
        "core": _names("timm torchvision transformers open_clip huggingface_hub")
        | _names("PIL safetensors zarr xarray pathlib shutil tempfile")
    },
    doors={"matplotlib": "present/figures/*.py", "ray": "runs/cluster.py", "gradio": "present/app.py"},
    calls=dict.fromkeys(("register_forward_hook", "register_forward_pre_hook"), "hooks/capture.py"),
)


@dataclass(frozen=True)
class Import:
    """One module that a file names."""

    target: str
    line: int
    runs_at_import: bool
    """Neither inside a function nor for type checkers only."""


class Module:
    """One file with what it imports; ``names`` are all modules of its package, which `from package import x` needs."""

    def __init__(self, file: Path, root: Path, package: str) -> None:
        self.file = file
        self.path = file.relative_to(root).as_posix()
        self.tree = ast.parse(file.read_text(encoding="utf-8"), filename=self.path)
        parts = [package, *file.relative_to(root).with_suffix("").parts]
        self.is_package = parts[-1] == "__init__"
        self.name = ".".join(parts[:-1] if self.is_package else parts)
        self.part = parts[1]

    def imports(self, names: frozenset[str]) -> Iterator[Import]:
        yield from self._walk(self.tree, names, runs=True)

    def _walk(self, node: ast.AST, names: frozenset[str], *, runs: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom | ast.Call):
                for target in self._targets(child, names):
                    yield Import(target, child.lineno, runs)
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for statement in child.body:
                    yield from self._walk(ast.Module([statement], []), names, runs=False)
                for statement in child.orelse:
                    yield from self._walk(ast.Module([statement], []), names, runs=runs)
                continue
            deferred = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from self._walk(child, names, runs=runs and not deferred)

    def _targets(self, node: ast.Import | ast.ImportFrom | ast.Call, names: frozenset[str]) -> list[str]:
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = self.name.split(".")[
                    : None if self.is_package and node.level == 1 else -(node.level - self.is_package)
                ]
                base = ".".join([*above, *([base] if base else [])])
            # `from package import submodule` names the submodule; `from module import function` the module.
            found = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in names else base for alias in node.names]
            return list(dict.fromkeys(found))
        if ast.unparse(node.func) in {"import_module", "importlib.import_module", "__import__"} and node.args:
            first = node.args[0]
            return [first.value] if isinstance(first, ast.Constant) and isinstance(first.value, str) else []
        return []


def modules(root: Path, package: str) -> list[Module]:
    return [Module(file, root, package) for file in sorted(root.rglob("*.py"))]


def faults(root: Path, layout: Layout) -> list[str]:
    """Every breach of the layout in the modules under ``root``, one sentence each."""
    found: list[str] = []
    every = modules(root, layout.package)
    names = frozenset(module.name for module in every)
    level = {part: number for number, layer in enumerate(layout.layers) for part in layer}
    for module in every:
        if module.part not in level and module.part not in layout.everywhere:
            found.append(f"{module.path}: {module.part!r} has no place in the layers")
        for imported in module.imports(names):
            where = f"{module.path}:{imported.line}"
            top, _, rest = imported.target.partition(".")
            if top != layout.package:
                if top in layout.barred.get(module.part, ()):
                    found.append(f"{where}: {module.part} must not know {top}")
                if top in layout.doors and not fnmatch(module.path, layout.doors[top]):
                    found.append(f"{where}: only {layout.doors[top]} imports {top}")
                continue
            part = rest.split(".")[0] or "__init__"
            if part in layout.everywhere or part == module.part:
                continue
            if module.part in layout.everywhere or level.get(part, len(level)) >= level.get(module.part, -1):
                found.append(f"{where}: {module.part} must not import {part}")
        found += [
            f"{module.path}:{line}: only {layout.calls[name]} uses {name}"
            for name, line in _mentions(module.tree)
            if name in layout.calls and not fnmatch(module.path, layout.calls[name])
        ]
    return found + _cycles(every, names)


def _mentions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):  # getattr(module, "register_…")
            yield node.value, node.lineno


def _cycles(every: list[Module], names: frozenset[str]) -> list[str]:
    graph = {
        module.name: {imported.target for imported in module.imports(names) if imported.runs_at_import} & names
        for module in every
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [f"modules import each other: {' -> '.join(reversed(error.args[1]))}"]
    return []


def long_files(root: Path, most: int = MAX_LINES) -> list[str]:
    counts = {
        file.relative_to(root).as_posix(): len(file.read_text(encoding="utf-8").splitlines())
        for file in sorted(root.rglob("*"))
        if file.suffix in TEXT
    }
    return [f"{path} has {count} lines; {most} are the most" for path, count in counts.items() if count > most]


def test_the_layout_holds() -> None:
    assert len(modules(SOURCE, "classlens")) > 10, "the sources were not found"
    assert faults(SOURCE, CLASSLENS) == []


def test_no_file_is_long() -> None:
    assert long_files(SOURCE) == []


def test_import_is_light() -> None:
    heavy = ("matplotlib", "ray", "transformers", "gradio", "sklearn", "skimage", "pytest", "pyarrow")
    program = f"import sys, classlens; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stdout + done.stderr


# The checks themselves: each of these files breaks one rule, and only that one.
BREACHES = {
    "core knows models": ("core/a.py", "from classlens.models import view", "core must not import models"),
    "core knows timm": ("core/a.py", "import timm.layers", "core must not know timm"),
    "core knows files": ("core/a.py", "def f():\n    from PIL import Image", "core must not know PIL"),
    "by its string": ("core/a.py", "import importlib\nimportlib.import_module('timm')", "core must not know timm"),
    "types point up": (
        "models/a.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from classlens.lens.lens import Lens",
        "models must not import lens",
    ),
    "deferred, pointing up": ("hooks/a.py", "def f():\n    import classlens.lens.lens", "hooks must not import lens"),
    "relative, pointing up": ("models/a.py", "from ..lens import lens", "models must not import lens"),
    "relative, from a package": ("models/family/__init__.py", "from ... import cli", "models must not import cli"),
    "in a class": ("core/a.py", "class A:\n    from ..models import view", "core must not import models"),
    "a neighbor": ("probes/a.py", "from classlens.faithful import removal", "probes must not import faithful"),
    "the public names": ("lens/a.py", "from classlens import __version__", "lens must not import __init__"),
    "errors import": ("errors.py", "import classlens.engine.ray", "errors must not import runs"),
    "matplotlib elsewhere": (
        "present/tables.py",
        "import matplotlib.pyplot",
        "only present/figures/*.py imports matplotlib",
    ),
    "ray elsewhere": ("runs/measure.py", "def f():\n    import ray", "only runs/cluster.py imports ray"),
    "hooks elsewhere": (
        "lens/a.py",
        "def f(m):\n    m.register_forward_hook(f)",
        "only hooks/capture.py uses register_forward_hook",
    ),
    "hooks by name": (
        "lens/a.py",
        "def f(m):\n    getattr(m, 'register_forward_pre_hook')(f)",
        "only hooks/capture.py uses register_forward_pre_hook",
    ),
    "a new part": ("extra/a.py", "", "'extra' has no place in the layers"),
    "a circle": ("core/norms.py", "from classlens.core import space", "modules import each other"),
    "a circle over its package": ("core/norms.py", "from . import project", "modules import each other"),
}
SOUND = {
    "__init__.py": "from classlens.lens.lens import Lens\n__version__ = '1'",
    "__main__.py": "from classlens.cli import app",
    "cli.py": "from classlens import __version__\nfrom classlens.lens import lens",
    "errors.py": "import difflib",
    "core/__init__.py": "from classlens.core.space import project",
    "core/norms.py": "import torch\nfrom classlens.errors import ClasslensError\n"
    "def f():\n    from classlens.core import space  # deferred: no circle",
    "core/space.py": "from typing import TYPE_CHECKING\nfrom . import norms as n\n"
    "if TYPE_CHECKING:\n    from classlens.core import norms2",
    "core/norms2.py": "from .space import project",
    "models/view.py": "import timm\nfrom ..core.space import project\nfrom PIL import Image",
    "hooks/capture.py": "def f(m):\n    m.register_forward_hook(f)\n    m.register_forward_pre_hook(f)",
    "lens/lens.py": "from classlens.models import view\nfrom classlens.hooks import capture",
    "faithful/removal.py": "from classlens.lens import lens",
    "present/figures/style.py": "import matplotlib.pyplot as plt\nfrom classlens.faithful import removal",
    "runs/cluster.py": "import ray",
}


def _written(folder: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


def test_sound_modules_pass(tmp_path: Path) -> None:
    assert faults(_written(tmp_path, SOUND), CLASSLENS) == []


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_is_caught(tmp_path: Path, breach: str) -> None:
    path, text, sentence = BREACHES[breach]
    (fault,) = faults(_written(tmp_path, SOUND | {path: text}), CLASSLENS)
    assert sentence in fault
    assert path in fault or "import each other" in fault


def test_a_long_file_is_caught(tmp_path: Path) -> None:
    _written(
        tmp_path, {"a.py": "x = 1\n" * 401, "b.js": "x\n" * 400, "c.css": "x\n" * 402, "d.safetensors": "x\n" * 500}
    )
    assert long_files(tmp_path) == ["a.py has 401 lines; 400 are the most", "c.css has 402 lines; 400 are the most"]
