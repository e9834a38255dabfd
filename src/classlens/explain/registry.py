"""The registry of explanation methods, and their notation on the command line."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import TYPE_CHECKING

from classlens.errors import ClasslensError
from classlens.registry import Registry

if TYPE_CHECKING:
    from classlens.explain.method import Method
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
    name, *parts = text.split(":")
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


def method_of(name: str, options: Collection[str]) -> Method:
    """The method of a name; raises ClasslensError for an unknown name or an option that the method does not have."""
    method = METHODS[name]
    for option in options:
        if option not in method.options:
            known = f"its options are {', '.join(method.options)}" if method.options else "it has no options"
            raise ClasslensError(f"method {name!r} has no option {option!r}: {known}")
    return method
