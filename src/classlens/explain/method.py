"""The record of an explanation method."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MapFunction = Callable[..., Any]
"""``function(model, pixels, target)`` returns maps ``[image, row, column]`` of pixels, for a class each."""
MethodLike = str | MapFunction
"""A method by its name, a function of yours, or one in a file: ``file.py:function``."""


@dataclass(frozen=True)
class Method:
    """An explanation method: how it runs, and how figures, help texts and documentation present it."""

    run: Callable[..., Any]
    """``run(recording, target, **options)`` returns a tensor of ``dims``; ``target`` holds one class index per image.

    Keyword-only arguments are the options of the method. An option ``against`` is a class: users give it like a target,
    and ``run`` receives one index per image. A method of a class should have it.
    """
    dims: tuple[str, ...]
    """``image`` first and ``token`` (image tokens) last, with ``block`` and ``head`` between them where they apply."""
    label: str
    """Name in figures."""
    about: str
    """One line for help texts and documentation."""
    source: str = ""
    """Publication."""
    color: str | None = None
    """Color in figures, ``#rrggbb``; None takes the next color of a palette."""
    signed: bool = False
    """Whether negative values speak against the class; other maps are at least 0."""
    signed_against: bool = False
    """Whether maps against another class are signed, where those of a class alone are not."""
    of_class: bool = True
    """Whether the map depends on the class."""
    drawn: bool = False
    """Whether maps are random orders, in which no image plays a part."""
    complete: bool = False
    """Whether the values, with the contributions of the other parts, sum to the class logit."""
    needs: tuple[str, ...] = ()
    """``attention weights``, or ``gradients`` of a second pass; of the head ``linear pooling``, ``exclusive classes``
    (which have ranks), or ``classes or labels`` (which have probabilities)."""
    every_query: bool = False
    """Whether it reads the attention weights of all queries, not of those alone that are explained."""
    stream: Callable[..., Any] | None = None
    """``stream(view, pixels, target, **options)`` returns the result of ``run`` from one pass that keeps no states."""
    resolve: Callable[[Mapping[str, Any]], dict[str, Any]] = dict
    """Copies given options and adds those whose default follows from others."""

    def is_signed(self, options: Mapping[str, Any]) -> bool:
        """Whether maps with these options have negative values."""
        return self.signed or (self.signed_against and options.get("against") is not None)

    @property
    def defaults(self) -> dict[str, Any]:
        """Default value of each option."""
        parameters = inspect.signature(self.run).parameters.values()
        return {option.name: option.default for option in parameters if option.kind is option.KEYWORD_ONLY}

    @property
    def options(self) -> tuple[str, ...]:
        return tuple(self.defaults)
