"""Class logits at each depth: what the model would decide if it ended after some of its blocks."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from classlens.core.steps import compute_dtype
from classlens.forward.edits.pooling import kept_tokens
from classlens.models.view import ModelView


class DepthLogits:
    """Logits of the tokens that the head reads, pooled as the model pools them, at every depth.

    Depth 0 are the embeddings, depth ``d`` follows ``d`` blocks, and the last depth are the model's own logits. A head
    that pools by attention pools the tokens of each depth by that same attention. The states are the inputs of blocks,
    which pass anyway, and all depths are projected in one product.

        depths = DepthLogits(view)
        logits = stream(view, pixels, names, receive, inputs=depths.receive)
        depths.stack(logits)                                    # [image, depth, category]
    """

    def __init__(self, view: ModelView) -> None:
        self._view = view
        self._inputs: list[list[Tensor]] = [[] for _ in view.readouts]

    def receive(self, block: int, states: Float[Tensor, "image token width"]) -> None:
        """Take the input of a block, with what edits of this pass let the head pool."""
        self.add(block, states, kept_tokens(self._view, *states.shape[:2]))

    def add(
        self, block: int, states: Float[Tensor, "image token width"], kept: Bool[Tensor, "image token"] | None
    ) -> None:
        """Take the input of a block, of which the head pools the tokens of ``kept`` alone, if given."""
        if kept is not None and all(bool(kept[:, readout.pooled].all()) for readout in self._view.readouts):
            kept = None
        for readout, inputs in zip(self._view.readouts, self._inputs, strict=True):
            space = self._view.space_at(readout.space, "resid_pre", block)
            inputs.append(readout.head_input(space, states, kept))

    def stack(self, logits: Float[Tensor, "image category"]) -> Float[Tensor, "image depth category"]:
        """All depths, with the model's own logits as the last one."""
        parts = [
            readout.classify(torch.stack(inputs, dim=1))
            for readout, inputs in zip(self._view.readouts, self._inputs, strict=True)
        ]
        return torch.cat([sum(parts[1:], parts[0]), logits.to(compute_dtype(logits.dtype))[:, None]], dim=1)
