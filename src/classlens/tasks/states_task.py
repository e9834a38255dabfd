"""The task of probes and tuned lenses: states of some sites, blocks and tokens, handed over and not stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from classlens.core.arrays import Array
from classlens.core.steps import compute_dtype
from classlens.data.loading import Batch
from classlens.engine.task import Job
from classlens.errors import ClasslensError
from classlens.forward.streaming import stream
from classlens.models.view import ModelView
from classlens.store.probe_folder import ProbeTokens

STATES = "states"
"""The one group of the task; its arrays are ``[image, token, width]`` by the key of their tokens."""


@dataclass(frozen=True, eq=False)
class StatesTask:
    """States of tokens at sites and blocks, float32 or float64."""

    tokens: tuple[ProbeTokens, ...]
    groups: tuple[str, ...] = (STATES,)
    mask_grid: None = None
    ignore_unknown: bool = False

    def needs_masks(self, group: str) -> bool:
        return False

    def measurer(self, job: Job) -> StatesMeasurer:
        return StatesMeasurer(self.tokens, job.source.lens.view)


class StatesMeasurer:
    """Runs the model and keeps the states of a batch."""

    def __init__(self, tokens: Sequence[ProbeTokens], view: ModelView) -> None:
        self._view = view
        self._sites = {wanted.site for wanted in tokens}
        self._tokens: dict[tuple[str, int], list[ProbeTokens]] = {}
        for wanted in tokens:
            self._tokens.setdefault((wanted.site, wanted.block), []).append(wanted)

    def measure(self, batch: Batch, groups: Sequence[str]) -> Iterator[tuple[str, dict[str, Array]]]:
        """The states of a batch; raises ClasslensError for logits that are not finite."""
        states: dict[str, Array] = {}

        def receive(site: str, block: int, x: Tensor) -> None:
            for wanted in self._tokens.get((site, block), ()):
                # A copy: a view of some tokens would keep all of them in RAM.
                states[wanted.key] = x[:, wanted.tokens].to("cpu", compute_dtype(x.dtype), copy=True).numpy()

        logits = stream(self._view, batch.pixels, self._sites, receive)
        if not bool(torch.isfinite(logits).all()):
            raise ClasslensError(
                f"images {batch.images[0]} to {batch.images[-1]} give logits that are not finite: check the images and "
                "the checkpoint for NaN"
            )
        yield STATES, states
