"""The learners of an unfinished pass, in a file beside the probes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch

from classlens.errors import ClasslensError, cause
from classlens.store.atomic import atomic_write
from classlens.store.probe_folder import ProbeFolder, ProbeTokens

CHECKPOINT_SECONDS = 60.0
"""Least time between checkpoints."""
CHECKPOINT_SHARE = 0.1
"""Largest share of the time that is spent on writing checkpoints."""

Stage = Literal["sums", "errors"]
"""Sweep of a pass: sums (or features) of all images, then the leave-one-out errors of every alpha."""


@runtime_checkable
class _Stateful(Protocol):
    def state(self) -> dict[str, Any]: ...


class Saved(NamedTuple):
    """The place where a pass stopped.

    Args:
        stage: its sweep.
        next_image: index of the first image that the learners have not seen.
        states: states of the learners by the key of their tokens.
    """

    stage: Stage
    next_image: int
    states: dict[str, Any]


class Checkpoint:
    """The checkpoint of one pass; a checkpoint of another pass is ignored, and replaced at the next save."""

    def __init__(self, folder: ProbeFolder, planned: Sequence[ProbeTokens]) -> None:
        self._path = _path(folder)
        text = json.dumps([folder.digest, [list(tokens) for tokens in planned]])
        self._key = hashlib.sha256(text.encode()).hexdigest()
        self._last, self._cost = time.perf_counter(), 0.0

    def load(self, tokens: Sequence[ProbeTokens]) -> Saved | None:
        """The state of the learners of these tokens; None where there is no checkpoint of this pass."""
        if not self._path.exists():
            return None
        try:
            saved: dict[str, Any] = torch.load(self._path, weights_only=True)
            key, states = saved["key"], saved["states"]
            where = Saved(saved["stage"], int(saved["next"]), {wanted.key: states.get(wanted.key) for wanted in tokens})
        except Exception as error:  # torch does not bound what a damaged file raises
            raise ClasslensError(
                f"checkpoint {str(self._path)!r} cannot be read ({cause(error)}): remove it to train this pass again"
            ) from None
        return where if key == self._key and None not in where.states.values() else None

    def save_if_due(self, stage: Stage, next_image: int, learners: Mapping[ProbeTokens, _Stateful]) -> None:
        """Save when enough time has passed."""
        if time.perf_counter() - self._last >= max(CHECKPOINT_SECONDS, self._cost / CHECKPOINT_SHARE):
            self.save(stage, next_image, learners)

    def save(self, stage: Stage, next_image: int, learners: Mapping[ProbeTokens, _Stateful]) -> None:
        """Write the state of the learners, completely or not at all; without room on the disk the pass goes on."""
        started = time.perf_counter()
        states = {tokens.key: learner.state() for tokens, learner in learners.items()}
        with suppress(OSError, RuntimeError), atomic_write(self._path) as path:  # torch raises both
            torch.save({"key": self._key, "stage": stage, "next": next_image, "states": states}, path)
        self._last = time.perf_counter()
        self._cost = self._last - started


def remove_checkpoint(folder: ProbeFolder) -> None:
    """Remove the checkpoint of a folder once the probes are written."""
    _path(folder).unlink(missing_ok=True)


def _path(folder: ProbeFolder) -> Path:
    return folder.folder / "training.checkpoint"
