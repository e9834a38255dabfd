"""A kind of page: its addresses, their description, and how it is written to disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.routing import BaseRoute

from classlens.explore.explorer import Explorer


@dataclass(frozen=True)
class Choice:
    """Contents of a static site: images, and classes with atlas pages, of each store by its number; None for all."""

    images: Mapping[int, Sequence[int]]
    classes: Mapping[int, Sequence[int]] | None = None


@dataclass(frozen=True)
class Page:
    """A kind of page.

    Attributes:
        routes: its addresses and their handlers.
        paths: the same as OpenAPI describes them.
        export: files of a static site, as relative path and content; None for what a server alone can do.
    """

    routes: Callable[[Explorer], Sequence[BaseRoute]]
    paths: Mapping[str, Any] = field(default_factory=dict)
    export: Callable[[Explorer, Choice], Iterator[tuple[str, str | bytes]]] | None = None
