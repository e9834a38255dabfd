"""Which edits a model has at the moment, so that a later pass can tell whether it is the same model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from weakref import WeakKeyDictionary

from torch import nn


class ActiveEdits(NamedTuple):
    """Edits in the order in which they were entered, and the points of blocks that they change."""

    edits: tuple[object, ...] = ()
    points: frozenset[str] = frozenset()


_active: WeakKeyDictionary[nn.Module, ActiveEdits] = WeakKeyDictionary()


def active_edits(module: nn.Module) -> ActiveEdits:
    """The edits of all contexts around this call."""
    return _active.get(module, ActiveEdits())


@contextmanager
def activated(module: nn.Module, edits: tuple[object, ...], points: frozenset[str]) -> Iterator[None]:
    """Count edits as active within the body."""
    before = active_edits(module)
    _active[module] = ActiveEdits(before.edits + edits, before.points | points)
    try:
        yield
    finally:
        _active[module] = before
