"""Which edits a model has at the moment, so that a later pass can tell whether it is the same model.

They are those of the calling thread: while another thread edits the model, this one waits to run it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import local
from typing import NamedTuple
from weakref import WeakKeyDictionary

from torch import nn


class ActiveEdits(NamedTuple):
    """Edits in the order in which they were entered, and the points of blocks that they change."""

    edits: tuple[object, ...] = ()
    points: frozenset[str] = frozenset()


class _Active(local):
    def __init__(self) -> None:
        self.edits: WeakKeyDictionary[nn.Module, ActiveEdits] = WeakKeyDictionary()


_active = _Active()


def active_edits(module: nn.Module) -> ActiveEdits:
    """The edits of all contexts around this call."""
    return _active.edits.get(module, ActiveEdits())


@contextmanager
def activated(module: nn.Module, edits: tuple[object, ...], points: frozenset[str]) -> Iterator[None]:
    """Count edits as active within the body."""
    before = active_edits(module)
    _active.edits[module] = ActiveEdits(before.edits + edits, before.points | points)
    try:
        yield
    finally:
        _active.edits[module] = before
