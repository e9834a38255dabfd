"""The tokens after every block, of some images in any order: kept in memory where they fit, else made anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from classlens.core.maps import compute_dtype
from classlens.data.dataset import Dataset
from classlens.data.loading import Reader, split
from classlens.engine.work import reading
from classlens.errors import ClasslensError
from classlens.forward.streaming import stream
from classlens.lens.lens import Lens


class States:
    """``resid_post`` of every block.

        states = States(lens, dataset, shape, 16, None, skip_bad=False, memory=8 * 10**9, prefix_only=False)
        for blocks in states.batches(order): blocks[5]      # [image, token, width], where the model is

    ``prefix_only`` leaves out image tokens where the head pools none of them. Images that cannot be read are left out,
    or raise ClasslensError.
    """

    def __init__(
        self,
        lens: Lens,
        data: Dataset,
        shape: tuple[int, ...],
        batch_size: int,
        workers: int | None,
        skip_bad: bool,
        memory: int,
        *,
        prefix_only: bool,
        report: Callable[[int], None] = lambda _: None,
    ) -> None:
        """``report`` is called with the images that are done while the states of all are made."""
        view = lens.view
        self._lens, self._data, self._shape = lens, data, shape
        self.batch_size, self._workers, self._skip_bad, self._report = batch_size, workers, skip_bad, report
        tokens = view.tokens((shape[1], shape[2]))
        prefix = len(tokens.prefix)
        pooled = [range(*readout.pooled.indices(tokens.count)) for readout in view.readouts]
        alone = prefix_only and all(one.stop <= prefix for one in pooled)
        self._tokens = slice(0, prefix if alone else tokens.count)
        self._size = (len(view.blocks), self._tokens.stop, view.blocks[0].attn.weight.shape[0])
        self._dtype = compute_dtype(view.dtype)
        numbers = self._size[0] * self._size[1] * self._size[2]
        self.fit = len(data) * numbers * self._dtype.itemsize <= memory
        self._kept: list[Tensor] | None = None
        self._there = torch.ones(len(data), dtype=torch.bool)

    def batches(self, images: Any) -> Iterator[list[Tensor]]:
        """The states of these images, by their indices, some at once and in that order."""
        if not self.fit:
            yield from (blocks for _, blocks in self._made(images))
            return
        if self._kept is None:
            self._kept = self._all()
        # Batches as they are when states are made anew: fewer images where some cannot be read.
        for some in torch.as_tensor(images).split(self.batch_size):
            there = some[self._there[some]]
            if len(there):
                yield [block[there].to(self._lens.view.device) for block in self._kept]

    def _all(self) -> list[Tensor]:
        blocks, tokens, width = self._size
        kept = [torch.empty(len(self._data), tokens, width, dtype=self._dtype) for _ in range(blocks)]
        for places, found in self._made(range(len(self._data))):
            self._report(int(places[-1]) + 1)
            for block, x in zip(kept, found, strict=True):
                block[places] = x.cpu()
            self._there[places] = True
        return kept

    def _made(self, images: Any) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Their indices, and what passes after each block."""
        view = self._lens.view
        order = torch.as_tensor(list(images))
        reader = Reader(self._data.subset(order.numpy()), self._lens.preprocessing, self._shape, (1, 1))
        for batch in reading(reader, split(range(len(order)), self.batch_size), self.batch_size, self._workers):
            if batch.problems and not self._skip_bad:
                why = batch.problems[min(batch.problems)]
                raise ClasslensError(f"{why}; --skip-bad (skip_bad=True) leaves it out")
            good = torch.ones(len(batch.images), dtype=torch.bool)
            good[[index - batch.images.start for index in batch.problems]] = False
            own = order[batch.images.start : batch.images.stop]
            self._there[own[~good]] = False
            if not bool(good.any()):
                continue
            found: list[Tensor] = []

            def keep(site: str, block: int, x: Tensor, found: list[Tensor] = found) -> None:
                found.append(x[:, self._tokens].to(self._dtype))

            logits = stream(view, batch.pixels[good], ["resid_post"], keep)
            if not bool(torch.isfinite(logits).all()):
                raise ClasslensError(
                    f"images of data {self._data.spec!r} give logits that are not finite: check the images and the "
                    "checkpoint for NaN"
                )
            yield own[good], found
