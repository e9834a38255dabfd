"""Which edits a model has at the moment, and what they replace while it runs.

They are those of the calling thread: while another thread edits the model, this one waits to run it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import local
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool
from torch import Tensor, nn

# Points at which a sublayer's output is split into parts; at the last four each channel counts by itself.
_WHOLE = frozenset({"attn_out", "attn_raw", "mlp_out", "mlp_raw"})
_CHANNELS = frozenset({"attn_coefficients", "attn_joined", "mlp_coefficients", "mlp_joined"})


class ActiveEdits(NamedTuple):
    """Edits in the order in which they were entered, the points that they change, and those of them where the change
    is computed from what passes."""

    edits: tuple[object, ...] = ()
    computed: frozenset[str] = frozenset()
    points: frozenset[str] = frozenset()


class Replacements:
    """Masks of what edits replaced in one pass, or in several, by point and block."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, int], dict[int, Tensor]] = {}

    def note(self, point: str, block: int, before: Tensor, after: Tensor, part: slice) -> None:
        """Add what one edit changed; ``part`` says which channels the tensors hold."""
        changed = after != before
        if point in _WHOLE:
            changed = changed.any(dim=-1)
        parts, start = self._parts.setdefault((point, block), {}), part.start or 0
        parts[start] = parts[start] | changed if start in parts else changed

    def of(self, point: str, block: int) -> Bool[Tensor, "image token"] | Bool[Tensor, "image token channel"] | None:
        """Replaced tokens of a sublayer's output, or channels of joined heads or hidden units; None without edits."""
        parts = self._parts.get((point, block))
        return None if parts is None else torch.cat([parts[start] for start in sorted(parts)], dim=-1)

    def points(self) -> set[str]:
        """The points at which something may have been replaced."""
        return {point for point, _ in self._parts}

    @classmethod
    def joined(cls, batches: Iterable[Replacements]) -> Replacements:
        """Those of several batches, one after another."""
        result, lists = cls(), list(batches)
        for point, block in {key for batch in lists for key in batch._parts}:
            masks = [batch.of(point, block) for batch in lists]
            assert all(mask is not None for mask in masks), "edits act in every batch"
            result._parts[point, block] = {0: torch.cat([mask for mask in masks if mask is not None])}
        return result


class _Active(local):
    def __init__(self) -> None:
        self.edits: WeakKeyDictionary[nn.Module, ActiveEdits] = WeakKeyDictionary()
        self.replacements: Replacements | None = None


_active = _Active()


def active_edits(module: nn.Module) -> ActiveEdits:
    """The edits of all contexts around this call."""
    return _active.edits.get(module, ActiveEdits())


@contextmanager
def activated(
    module: nn.Module, edits: tuple[object, ...], computed: frozenset[str], points: frozenset[str]
) -> Iterator[None]:
    """Count edits as active within the body."""
    before = active_edits(module)
    _active.edits[module] = ActiveEdits(before.edits + edits, before.computed | computed, before.points | points)
    try:
        yield
    finally:
        _active.edits[module] = before


@contextmanager
def noting_replacements(replacements: Replacements) -> Iterator[None]:
    """Note what edits replace in the passes of the body."""
    before, _active.replacements = _active.replacements, replacements
    try:
        yield
    finally:
        _active.replacements = before


def note_replacement(point: str, block: int, before: Tensor, after: Tensor, part: slice) -> None:
    """Note a change of the tensor that passes at a point, if anyone wants to know."""
    if _active.replacements is not None and point in _WHOLE | _CHANNELS:
        _active.replacements.note(point, block, before, after, part)
