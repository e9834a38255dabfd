"""Rules of imports, calls and files that the contracts of pyproject.toml (`lint-imports`) cannot express."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import classlens

SOURCE = Path(classlens.__file__).parent
PROJECT = Path(__file__).parent.parent / "pyproject.toml"
CONTRACTS: list[dict[str, Any]] = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["tool"]["importlinter"][
    "contracts"
]
LEVELS = {part: -level for level, row in enumerate(CONTRACTS[0]["layers"]) for part in row.split(" | ")}
MAX_LINES = 400
TEXT = {".py", ".js", ".css", ".html", ".md", ".toml"}
# Names that only one file uses.
DOORS = {"view.run": "forward/run.py"} | {
    f"register_{kind}hook": "forward/hooks.py"
    for kind in ("", "forward_", "forward_pre_", "full_backward_", "full_backward_pre_", "module_forward_")
}


def faults(root: Path) -> list[str]:
    """One sentence for each breach in the modules below ``root``."""
    return [
        f"{path}:{node.lineno}: {fault}"
        for path, tree in _trees(root)
        for node in ast.walk(tree)
        if isinstance(node, ast.expr) and (fault := _door_fault(path, node) or _string_fault(path, node))
    ]


def _trees(root: Path) -> Iterator[tuple[str, ast.Module]]:
    for file in sorted(root.rglob("*.py")):
        yield file.relative_to(root).as_posix(), ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def _door_fault(path: str, node: ast.expr) -> str:
    code = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
    names = {".".join(code.split(".")[-parts:]) for parts in (1, 2)}
    names |= {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()
    faults = [f"only {DOORS[name]} uses {name}" for name in names & DOORS.keys() if path != DOORS[name]]
    return "".join(faults)


def _string_fault(path: str, node: ast.expr) -> str:
    """A module that is named in a string, such as a row of a registry, which no contract sees."""
    match node:
        case ast.Call(func=function, args=[ast.Constant(), *_]):
            literal = ast.unparse(function).split(".")[-1] in ("import_module", "__import__")
            return "an import statement says the same where the contracts see it" if literal else ""
        case ast.Constant(value=str(text)):
            module = text.partition(":")[0].split(".")
        case _:
            return ""
    importer = path.removesuffix(".py").split("/")[0]
    if len(module) < 2 or module[0] != "classlens" or not {importer, module[1]} <= LEVELS.keys():
        return ""
    allowed = module[1] == importer or LEVELS[module[1]] < LEVELS[importer]
    return "" if allowed else f"{importer} must not name {module[1]}"


def long_files(root: Path) -> list[str]:
    counts = {
        file.relative_to(root).as_posix(): len(file.read_text(encoding="utf-8").splitlines())
        for file in sorted(root.rglob("*"))
        if file.suffix in TEXT
    }
    return [f"{path} has {lines} lines; {MAX_LINES} are allowed" for path, lines in counts.items() if lines > MAX_LINES]


def test_hooks_and_strings_keep_to_the_layers() -> None:
    assert len(list(_trees(SOURCE))) > 100, "the sources were not found"
    assert faults(SOURCE) == []


def test_no_file_is_long() -> None:
    assert long_files(SOURCE) == []


def test_import_is_light() -> None:
    heavy = (
        *("torch", "timm", "matplotlib", "ray", "transformers", "open_clip", "sklearn", "skimage", "pyarrow"),
        *("scipy", "pandas", "xarray", "zarr", "starlette", "pytest", "beartype"),
    )
    program = f"import sys, classlens; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stdout + done.stderr


# Each file breaks one rule; the number tells the line.
BREACHES = {
    "lens/a.py": ("def f(m):\n    m.register_forward_hook(f)", "a.py:2: only forward/hooks.py uses"),
    "forward/b.py": ("def f(m):\n    getattr(m, 'register_hook')(f)", "b.py:2: only forward/hooks.py uses"),
    "lens/e.py": ("def f(lens):\n    return lens.view.run(1)", "e.py:2: only forward/run.py uses view.run"),
    "core/c.py": ("import importlib\nimportlib.import_module('timm')", "c.py:2: an import statement says the same"),
    "models/d.py": ("ROWS = {'a': 'classlens.lens.lens:Lens'}", "d.py:1: models must not name lens"),
    "errors.py": ("HOME = 'classlens.registry'", "errors.py:1: errors must not name registry"),
}
SOUND = {
    "forward/hooks.py": "def f(m):\n    m.register_forward_hook(f)",
    "forward/run.py": "def f(view):\n    return view.run(1)",
    "explain/registry.py": "ROWS = {'a': 'classlens.explain.gradient:METHOD', 'b': 'classlens.core'}",
    "core/norms.py": "TEXT = 'classlens', 'classlens.org: models', 'hook'",
}


def _written(folder: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


def test_sound_modules_pass(tmp_path: Path) -> None:
    assert faults(_written(tmp_path, SOUND)) == []


@pytest.mark.parametrize("path", BREACHES)
def test_a_breach_is_caught(tmp_path: Path, path: str) -> None:
    text, sentence = BREACHES[path]
    (fault,) = faults(_written(tmp_path, SOUND | {path: text}))
    assert sentence in fault


def test_a_long_file_is_caught(tmp_path: Path) -> None:
    _written(
        tmp_path, {"a.py": "x = 1\n" * 401, "b.js": "x\n" * 400, "c.css": "x\n" * 402, "d.safetensors": "x\n" * 500}
    )
    assert long_files(tmp_path) == ["a.py has 401 lines; 400 are allowed", "c.css has 402 lines; 400 are allowed"]


# New files beside the real ones, and what the contracts say about each.
ARROWS = {
    "core/a.py": (
        "import timm.layers\ndef f():\n    from PIL import Image",
        "classlens.core.a -> timm",
        "core.a -> PIL",
    ),
    "core/b.py": ("import classlens.models.view", "classlens.core.b -> classlens.models.view"),
    "core/c.py": ("from . import d", "- .d -> .c (1 import)"),
    "core/d.py": ("def f():\n    from .c import x",),
    "models/e.py": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from classlens.lens.lens import Lens",
        "classlens.models.e -> classlens.lens.lens",
    ),
    "forward/f.py": ("def f():\n    from ..lens import lens", "classlens.forward.f -> classlens.lens.lens"),
    "models/timm.py": (
        "class A:\n    from classlens.models import torchvision",
        "timm -> classlens.models.torchvision",
    ),
    "lens/g.py": ("from classlens import __version__", "classlens.lens.g -> classlens"),
    "tasks/h.py": ("import matplotlib.pyplot", "classlens.tasks.h -> matplotlib"),
    "tasks/i.py": ("def f():\n    import ray", "classlens.tasks.i -> ray"),
    "cli/j.py": ("from classlens.cli import measure", "classlens.cli.j -> classlens.cli.measure"),
    "render/terminal/l.py": ("from . import memories", "terminal.l -> classlens.render.terminal.memories"),
}


def test_every_contract_can_break(tmp_path: Path) -> None:
    pytest.importorskip("importlinter")
    copy = tmp_path / "classlens"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    _written(copy, {path: text for path, (text, *_) in ARROWS.items()} | {"extra/__init__.py": ""})
    # The copy comes before the installed package: `-c` puts the working directory first.
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", program, "--no-logo", "--no-cache", str(PROJECT)]
    shown = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}
    ).stdout
    assert [contract["name"] for contract in CONTRACTS if f"{contract['name']} BROKEN" not in shown] == [], shown
    assert [arrow for _, *arrows in ARROWS.values() for arrow in arrows if arrow not in shown] == [], shown
    assert "classlens.extra" in shown
