"""Checks the annotations of every call into classlens, by jaxtyping's import hook and beartype, and quickly.

As it comes, the hook decorates a function within a function anew in each call, and keeps track of shapes in functions
without any: tests take three times as long. Here the first have no checks, and the second those of beartype alone.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, get_args

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import _import_hook

check_types = beartype(conf=BeartypeConf(is_pep484_tower=True))  # as for mypy, a float may be an int


def install() -> None:
    """Install the hook; classlens must not be imported yet."""
    if _import_hook.JaxtypingTransformer is not _Transformer:
        _import_hook.JaxtypingTransformer = _Transformer  # type: ignore[misc]
        jaxtyping.jaxtyped = _check  # type: ignore[assignment]  # the name that the hook writes into the modules
        # The name of the checker is part of the name of cached bytecode: change it with the transformer.
        jaxtyping.install_import_hook("classlens", f"{__name__}.check_types")


class _Transformer(_import_hook.JaxtypingTransformer):
    """Decorates functions of modules and classes, but none within a function."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        if any(isinstance(parent, ast.FunctionDef) for parent in self._parents):
            return node
        return super().visit_FunctionDef(node)  # type: ignore[no-any-return]


def _check(*, typechecker: Callable[..., Any]) -> Callable[[Any], Any]:
    def decorate(decorated: Any) -> Any:
        if inspect.isclass(decorated) or _has_shape(decorated):
            return _with_shapes(decorated, typechecker=typechecker)
        return _with_types(decorated, typechecker)

    return decorate


_with_shapes = jaxtyping.jaxtyped


def _with_types(function: Callable[..., Any], typechecker: Callable[..., Any]) -> Callable[..., Any]:
    checked = typechecker(function)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return (function if jaxtyping.config.jaxtyping_disable else checked)(*args, **kwargs)

    return call


def _has_shape(function: Callable[..., Any]) -> bool:
    """Whether an annotation has a shape, or cannot be evaluated yet, which jaxtyping takes for ``Any``."""
    try:
        hints = [
            eval(hint, function.__globals__) if isinstance(hint, str) else hint
            for hint in function.__annotations__.values()
        ]
    except Exception:
        return True
    return any(map(_is_shape, hints))


def _is_shape(hint: object) -> bool:
    return (inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray)) or any(map(_is_shape, get_args(hint)))
