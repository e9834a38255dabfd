"""Models from a user's Python file: a function that returns a description or a module of a known library."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from classlens.errors import ClasslensError, cause, suggestion
from classlens.models.adapter import Adapter, LibraryModel, ModelRequest, from_user
from classlens.models.view import ModelView


def create(name: str, request: ModelRequest) -> LibraryModel:
    """Run the file and call its function without arguments; it returns a ``ModelView`` or a module."""
    if not request.is_default:
        raise ClasslensError(
            f"model {name!r} takes no checkpoint, num_classes or options: load its weights in the function itself"
        )
    path, _, function = name.rpartition(":")
    if not Path(path).is_file():
        raise ClasslensError(f"model {name!r}: {path!r} is not a file; give the path of a Python file and a function")
    namespace = _run(name, lambda: runpy.run_path(path, run_name="classlens_model"))
    make = namespace.get(function)
    if not callable(make):
        callables = [key for key, value in namespace.items() if callable(value) and not key.startswith("_")]
        raise ClasslensError(f"model {name!r}: {path!r} has no function {function!r}{suggestion(function, callables)}")
    model: object = _run(name, make)
    if isinstance(model, nn.Module | ModelView):
        return from_user(model)
    raise ClasslensError(
        f"model {name!r}: {function}() returned a {type(model).__name__}; expected a ModelView, or "
        "a module of a library that classlens supports"
    )


def _run(name: str, call: Callable[[], Any]) -> Any:
    """Run a user's code; its exception stays the cause of the error, for a traceback in Python."""
    try:
        return call()
    except ClasslensError:
        raise
    except Exception as error:
        raise ClasslensError(
            f"model {name!r} raised {type(error).__name__} while it was created ({cause(error)}): run the file by "
            "itself to see where"
        ) from error


ADAPTER = Adapter(
    label="your own",
    about="A model that a function in your Python file describes",
    names=("file.py:function",),
    weights="your function",
    resolves=lambda name: re.fullmatch(r".+\.py:\w+", name) is not None,
    create=create,
)
