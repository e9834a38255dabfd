"""Functions of ``render`` by which results of lower layers show themselves, imported when they are first used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from classlens.registry import Registry

RENDERERS: Registry[Callable[..., Any]] = Registry("renderer", {})
"""``classlens/__init__.py`` has the rows: no module of a layer names one above it."""


class Shown:
    """A result that notebooks show as HTML, by the renderer of its name."""

    __slots__ = ()
    _renderer: ClassVar[str]

    def _repr_html_(self) -> str:
        return str(RENDERERS[self._renderer](self))
