"""Runs a model once and keeps what results are computed from."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from classlens.core.steps import compute_dtype
from classlens.forward.active_edits import Replacements, active_edits, noting_replacements
from classlens.forward.edits.pooling import kept_tokens
from classlens.forward.model_state import ModelState
from classlens.forward.recording import Recording
from classlens.forward.streaming import stream
from classlens.models.view import SCORE_POINTS, SHARED_POINTS, ModelView

# All sites of the residual stream are sums of the first three (law 1), in the model's own order of addition.
_NAMES = ("embed", "attn_out", "mlp_out", "values", "attn_raw", "mlp_raw", "attn_joined", "mlp_joined")
Queries = Int[Tensor, " query"] | Literal["all", "none"]


def record(view: ModelView, pixels: Tensor, *, batch_size: int = 32, queries: Queries = "all") -> Recording:
    """Run the model over ``pixels`` (``[image, channel, height, width]``) and keep what a trace needs.

    Args:
        queries: positions of queries, in ascending order, whose attention weights are kept. ``"all"`` keeps what the
            weights are computed from. Where that does not pass, or where an edit changes the weights, attention is
            computed in steps and the weights of the tokens that the head pools are kept.
    """
    tokens = view.tokens((int(pixels.shape[2]), int(pixels.shape[3])))
    keeper = _Keeper(view, len(pixels), tokens.count, queries)
    logits, kept, replaced = [], [], []
    for start in range(0, len(pixels), batch_size):
        replaced.append(Replacements())
        with noting_replacements(replaced[-1]):
            batch = pixels[start : start + batch_size]
            logits.append(stream(view, batch, keeper.names, partial(keeper.receive, start)))
        mask = kept_tokens(view, len(logits[-1]), tokens.count)
        if mask is not None:
            kept.append(mask)
    return Recording(
        view,
        tokens,
        torch.cat(logits),
        pixels,
        keeper.activations,
        state=ModelState.of(view.module),
        replaced=Replacements.joined(replaced),
        kept=torch.cat(kept) if kept else None,
        batch_size=batch_size,
        queries=keeper.queries,
    )


def pooled_queries(view: ModelView, count: int) -> Int[Tensor, " query"]:
    """Positions of the tokens that the head pools, of ``count`` tokens."""
    every = torch.arange(count)
    positions: Tensor = torch.cat([every[readout.pooled] for readout in view.readouts]).unique()
    return positions


class _Keeper:
    """Keeps what passes in successive batches: one tensor for each name and block."""

    def __init__(self, view: ModelView, images: int, tokens: int, queries: Queries) -> None:
        edited = active_edits(view.module).points
        self._view, self._images = view, images
        self._passing: dict[str, Tensor] = {}
        self.activations: dict[tuple[str, int], Tensor] = {}
        self.queries: Int[Tensor, " query"] | None = None
        if isinstance(queries, Tensor):
            self.queries = queries
        names = (*_NAMES, *({"attn_coefficients"} & edited))
        if queries == "none":
            self.names: tuple[str, ...] = names
        elif "attention" in edited or not all(block.shows_scores for block in view.blocks):
            self.names = (*names, "attention")
            self.queries = pooled_queries(view, tokens) if self.queries is None else self.queries
        else:
            self.names = (*names, *SCORE_POINTS, *SHARED_POINTS)
            channels = view.blocks[0].attn.weight.shape[1] // view.blocks[0].heads
            if self.queries is not None and len(self.queries) > 2 * channels:
                self.queries = None  # queries and keys take less RAM than these weights

    def receive(self, start: int, name: str, block: int, x: Tensor) -> None:
        """Take what passes; all of attention has passed when its output does."""
        if name in ("embed", "mlp_out", "mlp_raw", "mlp_joined"):
            self._keep(start, name, block, x)
            return
        self._passing[name] = x
        if name == "attn_out":
            passing, self._passing = self._with_rows(block, self._passing), {}
            if start == 0 and self._images == len(x):
                passing = _owned(passing)
            for passed, tensor in passing.items():
                self._keep(start, passed, block, tensor)

    def _with_rows(self, block: int, passing: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors that passed in a block; weights of the kept queries stand for those they are computed from."""
        if self.queries is None:
            return passing
        queries = self.queries.to(self._view.device)
        if "attention" in passing:
            return {**passing, "attention": passing["attention"][:, :, queries]}
        names = (*SCORE_POINTS, *SHARED_POINTS)
        dtype = compute_dtype(self._view.dtype)
        passed = {name: passing[name].to(dtype) for name in names if name in passing}
        rest = {name: x for name, x in passing.items() if name not in names}
        return {**rest, "attention": self._view.blocks[block].scores(passed, queries).softmax(dim=-1)}

    def _keep(self, start: int, name: str, block: int, x: Tensor) -> None:
        """Keep a batch of all images as it is; write successive batches into one tensor a block."""
        activations = self.activations
        if name in SHARED_POINTS:
            activations.setdefault((name, block), x)
        elif len(x) == self._images:
            activations[name, block] = x
        else:
            if start == 0:
                activations[name, block] = x.new_empty(self._images, *x.shape[1:])
            activations[name, block][start : start + len(x)] = x


def _owned(passing: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, copied where they would keep alive what is not kept, such as a joint projection."""
    kept: dict[int, int] = {}
    for x in passing.values():
        storage = x.untyped_storage().data_ptr()
        kept[storage] = kept.get(storage, 0) + x.nbytes
    return {
        name: x if x.untyped_storage().nbytes() <= kept[x.untyped_storage().data_ptr()] else x.clone()
        for name, x in passing.items()
    }
