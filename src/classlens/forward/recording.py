"""Activations of a forward pass, kept to be projected and explained later."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial

import torch
from torch import Tensor

from classlens.core.steps import compute_dtype
from classlens.errors import ClasslensError
from classlens.forward.active_edits import active_edits
from classlens.forward.streaming import stream
from classlens.models.view import ModelView, Tokens

# All sites of the residual stream are sums of the first three (law 1), in the model's own order of addition.
_NAMES = ("embed", "attn_out", "mlp_out", "values", "attn_raw", "mlp_raw", "attn_joined", "mlp_joined")


class Recording:
    """Pixels, logits and activations of some images: embeddings, sublayer outputs, values.

    ``recording.state("resid_mid", 3, slice(0, 4))`` is ``[image, token, width]`` of the first four images.
    ``activations`` go by name and block.
    """

    def __init__(
        self,
        view: ModelView,
        tokens: Tokens,
        logits: Tensor,
        pixels: Tensor,
        activations: dict[tuple[str, int], Tensor],
    ) -> None:
        self.view = view
        self.tokens = tokens
        self.logits = logits
        self.pixels = pixels
        self._activations = activations
        self._active = active_edits(view.module)

    def require_same_edits(self) -> None:
        """Raises ClasslensError where the model has other edits now: another pass would not be the recorded one."""
        if active_edits(self.view.module).edits != self._active.edits:
            names = ", ".join(type(edit).__name__ for edit in self._active.edits) or "no edits"
            raise ClasslensError(
                f"these images ran with {names}, and this explanation runs them again: call it within the same "
                "lens.edit(…), with the same edit objects"
            )

    def require_unchanged(self, points: Collection[str], what: str) -> None:
        """Raises ClasslensError where an edit changes one of these points."""
        changed = [point for point in points if point in self._active.points]
        if changed:
            raise ClasslensError(
                f"{what} would be those of the unedited model, as an edit changes {changed[0]}: leave that edit out, "
                "or give a method that runs the edited model, such as chefer"
            )

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of results: float32 at least."""
        return compute_dtype(self.view.dtype)

    def activation(self, name: str, block: int) -> Tensor:
        """``embed`` (block 0), ``attn_out``, ``mlp_out`` or ``values`` of all images."""
        return self._activations[name, block]

    def before_norm(self, name: str, block: int, images: slice, tokens: slice) -> Tensor | None:
        """``attn_raw``, ``mlp_raw``, ``attn_joined`` or ``mlp_joined`` of some tokens; None for blocks without it."""
        activation = self._activations.get((name, block))
        return None if activation is None else activation[images, tokens]

    def sublayer_outputs(self, images: slice) -> Iterator[tuple[Tensor, Tensor]]:
        """``(attn_out, mlp_out)`` of each block in turn, for some images."""
        for block in range(len(self.view.blocks)):
            yield self.activation("attn_out", block)[images], self.activation("mlp_out", block)[images]

    def walk(self, site: str, images: slice) -> Iterator[tuple[int, Tensor]]:
        """``(block, [image, token, width])`` of a site at every block in turn, for some images."""
        before = self.activation("embed", 0)[images]
        if site == "embed":
            yield 0, before
            return
        for block, (attn, mlp) in enumerate(self.sublayer_outputs(images)):
            middle = before + attn
            after = middle + mlp
            states = {"resid_pre": before, "attn_out": attn, "resid_mid": middle, "mlp_out": mlp, "resid_post": after}
            yield block, states[site]
            before = after

    def state(self, site: str, block: int, images: slice) -> Tensor:
        """``[image, token, width]`` of a site at one block, for some images."""
        return next(state for number, state in self.walk(site, images) if number == block)


def record(view: ModelView, pixels: Tensor, *, batch_size: int = 32) -> Recording:
    """Run the model over ``pixels`` (``[image, channel, height, width]``) and keep what a trace needs."""
    tokens = view.tokens((int(pixels.shape[2]), int(pixels.shape[3])))
    activations: dict[tuple[str, int], Tensor] = {}
    logits = [
        stream(view, pixels[start : start + batch_size], _NAMES, partial(_keep, activations, len(pixels), start))
        for start in range(0, len(pixels), batch_size)
    ]
    return Recording(view, tokens, torch.cat(logits), pixels, activations)


def _keep(
    activations: dict[tuple[str, int], Tensor], images: int, start: int, name: str, block: int, x: Tensor
) -> None:
    """Keep a batch of all images as it is; write successive batches into one tensor a block."""
    if len(x) == images:
        activations[name, block] = x
        return
    if start == 0:
        activations[name, block] = x.new_empty(images, *x.shape[1:])
    activations[name, block][start : start + len(x)] = x
