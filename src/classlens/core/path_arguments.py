"""Arguments that may be paths: ``~`` is expanded before they are checked."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from classlens.core.arguments import checked
from classlens.core.home import expanded

P = ParamSpec("P")
R = TypeVar("R")


def checked_with_home(function: Callable[P, R]) -> Callable[P, R]:
    """``checked``, after the paths among the arguments of a function are expanded."""
    taking = checked(function)

    @wraps(taking)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return taking(*map(expanded, args), **expanded(kwargs))

    return call
