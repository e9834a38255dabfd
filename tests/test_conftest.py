"""The guards of conftest.py catch mistakes, and so do the checks of shapes that pyproject.toml turns on."""

from __future__ import annotations

import ast
import builtins
import sys
import textwrap
from pathlib import Path

import jaxtyping
import pytest
import torch

import classlens
from classlens.core.scores import facts

pytest_plugins = ["pytester"]

SOURCE = Path(classlens.__file__).parent

CONFTEST = Path(__file__).with_name("conftest.py")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("socket.create_connection(('192.0.2.1', 80), timeout=1)", "192.0.2.1"),
        ("socket.socket(socket.AF_INET6).connect(('2001:db8::1', 80))", "2001:db8::1"),
        (
            "swallow(socket.create_connection, ('example.invalid', 80))",
            "example.invalid",
        ),
        ("timm.layers.config._USE_FUSED_ATTN = 0", "timm fused attention"),
        ("torch.set_grad_enabled(False)", "gradients"),
        ("torch.set_default_dtype(torch.float64)", "default dtype"),
    ],
)
def test_a_guard_catches(pytester: pytest.Pytester, body: str, message: str) -> None:
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    pytester.makepyfile(
        f"""
        import contextlib, socket
        import timm.layers.config, torch

        def swallow(function, *args):
            with contextlib.suppress(OSError):
                function(*args)

        def test_offends():
            {body}

        def test_next_one_is_clean():
            assert timm.layers.config._USE_FUSED_ATTN == 1
            assert torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    outcomes = result.parseoutcomes()
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) >= 1, result.stdout.str()
    assert message in result.stdout.str()
    assert "test_next_one_is_clean" not in "\n".join(line for line in result.outlines if line.startswith("FAILED"))


def test_local_sockets_are_free(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    pytester.makepyfile(
        """
        import os, socket
        import pytest

        def test_loopback():
            with socket.create_server(("127.0.0.1", 0)) as server:
                socket.create_connection(("localhost", server.getsockname()[1])).close()

        def test_unix(tmp_path):
            os.chdir(tmp_path)
            with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
                server.bind("s")
                server.listen()
                client.connect("s")

        def test_offline():
            import huggingface_hub.constants
            assert huggingface_hub.constants.HF_HUB_OFFLINE and os.environ["HF_HUB_OFFLINE"] == "1"

        @pytest.mark.parametrize("turn", [1, 2])
        def test_seeded(turn, generator):
            import torch
            assert torch.equal(torch.rand(3), torch.rand(3, generator=generator))
        """
    )
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=5)


def test_a_wrong_shape_fails() -> None:
    facts(torch.rand(2, 3), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(jaxtyping.TypeCheckError, match="rows"):
        facts(torch.rand(2, 3), torch.zeros(4, dtype=torch.int64))


@pytest.mark.wrong_types
def test_a_wrong_type_reaches_the_function_where_a_test_asks_for_it() -> None:
    with pytest.raises(AttributeError):
        facts("logits", 1)  # type: ignore[arg-type]


def test_the_checks_cover_every_module() -> None:
    loaders = {
        name: type(module.__spec__.loader).__name__
        for name, module in sys.modules.items()
        # Packages have no functions; collecting doctests may load one in its own way.
        if name.startswith("classlens.") and module.__spec__ is not None and not hasattr(module, "__path__")
    }
    assert "classlens.core.scores" in loaders
    assert {name for name, loader in loaders.items() if loader != "_JaxtypingLoader"} == set()


def unresolved(source: str) -> list[str]:
    """Names in shape annotations that are bound later or for type checkers only: jaxtyping reads these as `Any`."""
    tree, dtypes = ast.parse(source), {name for name in dir(jaxtyping) if name[0].isupper()}
    bound = dict.fromkeys(dir(builtins), 0)
    for statement in tree.body:
        match statement:
            case ast.Import() | ast.ImportFrom():
                bound |= dict.fromkeys([alias.asname or alias.name for alias in statement.names], statement.lineno)
            case ast.FunctionDef() | ast.ClassDef():
                bound[statement.name] = statement.end_lineno or 0
            case ast.Assign() | ast.AnnAssign():
                stored = [node for node in ast.walk(statement) if isinstance(node, ast.Name)]
                bound |= {node.id: statement.lineno for node in stored if isinstance(node.ctx, ast.Store)}
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    annotations = [(f, node.annotation) for f in functions for node in ast.walk(f.args) if isinstance(node, ast.arg)]
    return [
        f"{function.name}: {name}"
        for function, annotation in [*annotations, *((f, f.returns) for f in functions)]
        if annotation is not None
        for names in [[node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)]]
        if not dtypes.isdisjoint(names)
        for name in names
        if bound.get(name, sys.maxsize) > function.lineno
    ]


def test_no_shape_is_skipped() -> None:
    sources = {file.relative_to(SOURCE).as_posix(): file.read_text(encoding="utf-8") for file in SOURCE.rglob("*.py")}
    skipped = {file: names for file, source in sources.items() if (names := unresolved(source))}
    # A method that returns an instance of its own class in a tuple: the fields are checked where the instance is built.
    assert skipped == {"core/attention.py": ["split: Functional"]}


def test_a_skipped_shape_is_found() -> None:
    source = """
    from typing import TYPE_CHECKING
    from jaxtyping import Float
    if TYPE_CHECKING:
        from torch import Tensor
    class Later: ...
    def f(x: Float[Tensor, "a"]) -> tuple[Float[Later, "a"], "Next"]: ...
    class Next: ...
    """
    assert unresolved(textwrap.dedent(source)) == ["f: Tensor"]
