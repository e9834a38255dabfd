"""States after every block for the training of a tuned lens: kept in RAM where they fit, else computed each epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from classlens.core.arrays import Array
from classlens.core.steps import compute_dtype
from classlens.engine.runner import BatchResult
from classlens.engine.session import Session
from classlens.store.probe_folder import ProbeTokens
from classlens.tasks.states_task import STATES, StatesTask


class TrainingStates:
    """``resid_post`` of every block, for some images at once.

    Args:
        session: model and images.
        ram: bytes for the states of all images.
        pooled_only: leave out image tokens where the head pools none of them.
        report: called with the number of images as the states of all images are computed.
    """

    def __init__(
        self,
        session: Session,
        ram: int,
        *,
        pooled_only: bool,
        report: Callable[[int], None] = lambda images: None,
    ) -> None:
        view, tokens = session.lens.view, session.tokens
        prefix = len(tokens.prefix)
        pooled = [range(*readout.pooled.indices(tokens.count)) for readout in view.readouts]
        count = prefix if pooled_only and all(positions.stop <= prefix for positions in pooled) else tokens.count
        self._session, self._report = session, report
        self._tokens = tuple(ProbeTokens("resid_post", block, 0, count) for block in range(len(view.blocks)))
        self._task = StatesTask(self._tokens)
        self._dtype = compute_dtype(view.dtype)
        width = view.blocks[0].attn.weight.shape[0]
        self._shape = (count, width)
        self.batch_size = session.batch_size
        self.fits = len(session.dataset) * len(view.blocks) * count * width * self._dtype.itemsize <= ram
        self._blocks: list[Tensor] | None = None
        self._readable = torch.ones(len(session.dataset), dtype=torch.bool)

    def batches(self, images: Array) -> Iterator[list[Tensor]]:
        """States ``[image, token, width]`` of each block on the device of the model, in the order of ``images``.

        Empty for a batch without a readable image.
        """
        if not self.fits:
            for result in self._session.stream(self._session.job(self._task, images=images)):
                states = self._states(result) if result.readable.any() else []
                yield [block.to(self._session.lens.view.device) for block in states]
            return
        self.load()
        assert self._blocks is not None
        # The batches of the other branch: they are smaller where images are unreadable.
        for indices in torch.as_tensor(images).split(self.batch_size):
            readable = indices[self._readable[indices]]
            blocks = self._blocks if len(readable) else []
            yield [block[readable].to(self._session.lens.view.device) for block in blocks]

    def load(self) -> None:
        """Compute the states of all images where they fit, once."""
        if not self.fits or self._blocks is not None:
            return
        total = len(self._session.dataset)
        blocks = [torch.empty(total, *self._shape, dtype=self._dtype) for _ in self._tokens]
        for result in self._session.stream(self._session.job(self._task)):
            images = np.array(result.images)
            for block, states in zip(blocks, self._states(result), strict=True):
                block[images[result.readable]] = states
            self._readable[images[~result.readable]] = False
            self._report(int(images[-1]) + 1)
        self._blocks = blocks

    def _states(self, result: BatchResult) -> list[Tensor]:
        readable = torch.as_tensor(result.readable)
        return [torch.from_numpy(result.arrays[STATES][tokens.key])[readable] for tokens in self._tokens]
