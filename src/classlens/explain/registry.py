"""The registry of explanation methods, and their notation on the command line."""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress
from typing import TYPE_CHECKING

from classlens.errors import ClasslensError
from classlens.registry import Registry

if TYPE_CHECKING:
    from classlens.explain.method import Method, MethodLike
    from classlens.models.view import ModelView

METHODS: Registry[Method] = Registry(
    "method",
    {
        "class_gradient": "classlens.explain.class_gradient:CLASS_GRADIENT",
        "attention": "classlens.explain.attention:ATTENTION",
        "rollout": "classlens.explain.attention:ROLLOUT",
        "chefer": "classlens.explain.chefer:CHEFER",
        "grad_cam": "classlens.explain.grad_cam:GRAD_CAM",
        "legrad": "classlens.explain.legrad:LEGRAD",
        "class_rank": "classlens.explain.class_rank:CLASS_RANK",
        "logit_attribution": "classlens.explain.attribution:LOGIT_ATTRIBUTION",
        "log_odds": "classlens.explain.attribution:LOG_ODDS",
        "random": "classlens.explain.random:RANDOM",
    },
)
"""Every explanation method, in the order of tables and figures."""
DEFAULT_METHODS = ("log_odds", "logit_attribution", "class_gradient")
"""The most faithful method first (see the documentation), then those that other heads allow."""
_FILE = re.compile(r"(?P<path>.+\.py:)(?P<name>\w+)")


def default_method(view: ModelView) -> str:
    """The first of ``DEFAULT_METHODS`` that is defined for a model."""
    return next(name for name in DEFAULT_METHODS if is_defined(METHODS[name], view))


def is_defined(method: Method, view: ModelView) -> bool:
    """Whether the head of a model has what a method needs."""
    has = {
        "linear pooling": all(readout.space.pool is None for readout in view.readouts),
        "exclusive classes": view.exclusive,
        "classes or labels": view.exclusive or view.multi_label,
    }
    return all(has.get(need, True) for need in method.needs)


def parse_method(text: str) -> tuple[str, dict[str, int | float | str]]:
    """Name and options of a method in the notation of the command line.

    Raises ClasslensError for another notation, an option given twice, and as ``method_of`` does.

    Examples:
        >>> parse_method("class_gradient:loss=logit")
        ('class_gradient', {'loss': 'logit'})
    """
    name, options = split_method(text)
    method_of(name, options)
    return name, options


def split_method(text: str) -> tuple[str, dict[str, int | float | str]]:
    """``parse_method`` without a check of the name and its options."""
    file = _FILE.match(text)
    start = file.end() if file else 0
    first, *parts = text[start:].split(":")
    name = text[:start] + first
    options: dict[str, int | float | str] = {}
    for part in parts:
        option, equals, value = part.partition("=")
        if not (option and equals and value):
            raise ClasslensError(f"method {text!r} is not NAME:OPTION=VALUE: write it as class_gradient:loss=logit")
        if option in options:
            raise ClasslensError(f"method {text!r} has the option {option!r} twice: leave one out")
        options[option] = _number(value)
    return name, options


def _number(text: str) -> int | float | str:
    """A number where the text is one."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def find_method(method: MethodLike) -> Method:
    """The method of a name, of a function, or of one in a file, ``file.py:function``.

    Raises ClasslensError for an unknown name, a file without such a function, and a function named as a method is.
    """
    if isinstance(method, str) and _FILE.fullmatch(method) is None:
        return METHODS[method]
    from classlens.explain.custom import file_method, function_method

    record = file_method(method) if isinstance(method, str) else function_method(method)
    if record.label in METHODS:
        raise ClasslensError(
            f"method {record.label!r} is one of classlens, and a function of yours has its name: rename the function"
        )
    return record


def short_name(method: MethodLike) -> str:
    """A method, with its options, as results name it: by the function alone where it has a file."""
    if not isinstance(method, str):
        return find_method(method).label
    file = _FILE.match(method)
    return method[file.start("name") :] if file else method


def method_of(name: MethodLike, options: Collection[str]) -> Method:
    """The method of a name; raises ClasslensError for an unknown name or an option that the method does not have."""
    method = find_method(name)
    for option in options:
        if option not in method.options:
            known = f"its options are {', '.join(method.options)}" if method.options else "it has no options"
            raise ClasslensError(f"method {short_name(name)!r} has no option {option!r}: {known}")
    return method
