"""Models that a user describes: a function in a Python file that returns a view, or a model of a known library."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from classlens.errors import ClasslensError, cause, suggestion
from classlens.models.families import Created, Request
from classlens.models.view import ModelView


def claims(name: str) -> bool:
    """``path/to/file.py:function``."""
    return re.fullmatch(r".+\.py:\w+", name) is not None


def create(name: str, request: Request) -> Created:
    """Run the file and call its function without arguments; it returns a ``ModelView`` or a module."""
    if not request.plain:
        raise ClasslensError(
            f"model {name!r} takes no checkpoint, num_classes or options: load its weights in the function itself"
        )
    path, _, function = name.rpartition(":")
    if not Path(path).is_file():
        raise ClasslensError(f"model {name!r}: {path!r} is not a file; give the path of a Python file and a function")
    found = _run(name, lambda: runpy.run_path(path, run_name="classlens_model"))
    make = found.get(function)
    if not callable(make):
        callables = [key for key, value in found.items() if callable(value) and not key.startswith("_")]
        raise ClasslensError(f"model {name!r}: {path!r} has no function {function!r}{suggestion(function, callables)}")
    made: object = _run(name, make)
    if isinstance(made, ModelView):
        return Created(made.module, made.class_names, made.transform, made)
    if isinstance(made, nn.Module):
        return Created(made)
    raise ClasslensError(
        f"model {name!r}: {function}() returned a {type(made).__name__}; expected a ModelView, or "
        "a module of a library that classlens reads"
    )


def _run(name: str, call: Callable[[], Any]) -> Any:
    """What a user's own code returns; what it raises stays the cause of the error, for a traceback in Python."""
    try:
        return call()
    except ClasslensError:
        raise
    except Exception as error:
        raise ClasslensError(
            f"model {name!r} raised {type(error).__name__} when it was made ({cause(error)}): run the file by "
            "itself to see where"
        ) from error


def view(module: nn.Module, name: str) -> ModelView:
    """Never asked: a user's view comes with the model."""
    raise ClasslensError(f"model {name!r} comes without a description: give a ModelView")


def known_as(module: nn.Module) -> Created:
    """Nothing."""
    return Created(module)
