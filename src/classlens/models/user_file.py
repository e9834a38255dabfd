"""Functions of a user's Python file: they return a description of a model, a module, pixels, or maps."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor, nn

from classlens.errors import ClasslensError, cause, suggestion
from classlens.models.adapter import Adapter, LibraryModel, ModelRequest, from_user
from classlens.models.view import ModelView


def create(name: str, request: ModelRequest) -> LibraryModel:
    """Run the file and call its function without arguments; it returns a ``ModelView`` or a module."""
    if not request.is_default:
        raise ClasslensError(
            f"model {name!r} takes no checkpoint, num_classes or options: load its weights in the function itself"
        )
    make = function_of("model", name)
    model: object = _run("model", name, make)
    if isinstance(model, nn.Module | ModelView):
        return from_user(model)
    raise ClasslensError(
        f"model {name!r}: {name.rpartition(':')[2]}() returned a {type(model).__name__}; expected a ModelView, or "
        "a module of a library that classlens supports"
    )


@dataclass(frozen=True)
class FileTransform:
    """A transform from a user's Python file, ``file.py:function``; other processes read the file again.

    The function takes a picture and returns ``[channel, height, width]``, or takes nothing and returns such a function.
    """

    name: str

    @cached_property
    def function(self) -> Callable[..., Any]:
        function = function_of("transform", self.name)
        if isinstance(function, type) or not _takes_nothing(function):
            return function
        transform: object = _run("transform", self.name, function)
        if not callable(transform):
            raise ClasslensError(
                f"transform {self.name!r} returned a {type(transform).__name__}: expected a function from a picture to "
                "a tensor"
            )
        return transform

    def __call__(self, image: Image.Image) -> Tensor:
        pixels: Tensor = self.function(image)
        return pixels

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name}

    @property
    def transforms(self) -> Any:
        """The steps of a chain, from which mean and standard deviation are read."""
        return getattr(self.function, "transforms", ())


def _takes_nothing(function: Callable[..., Any]) -> bool:
    try:
        signature(function).bind()
    except (TypeError, ValueError):
        return False
    return True


def function_of(kind: str, name: str) -> Callable[..., Any]:
    """The function that ``file.py:function`` names, after running the file."""
    path, _, function = name.rpartition(":")
    if not path.endswith(".py"):
        raise ClasslensError(f'{kind} {name!r} is not known: give "paper", or a function of yours as file.py:function')
    if not Path(path).is_file():
        raise ClasslensError(f"{kind} {name!r}: {path!r} is not a file; give the path of a Python file and a function")
    namespace = _run(kind, name, lambda: runpy.run_path(path, run_name=f"classlens_{kind}"))
    make: object = namespace.get(function)
    if not callable(make):
        callables = [key for key, value in namespace.items() if callable(value) and not key.startswith("_")]
        raise ClasslensError(f"{kind} {name!r}: {path!r} has no function {function!r}{suggestion(function, callables)}")
    return make


def _run(kind: str, name: str, call: Callable[[], Any]) -> Any:
    """Run a user's code; its exception stays the cause of the error, for a traceback in Python."""
    try:
        return call()
    except ClasslensError:
        raise
    except Exception as error:
        raise ClasslensError(
            f"{kind} {name!r} raised {type(error).__name__} while it was created ({cause(error)}): run the file by "
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
