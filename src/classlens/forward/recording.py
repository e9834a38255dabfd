"""Activations of a forward pass, kept to be projected and explained later."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import fields
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from classlens.core.attention import Replaced
from classlens.core.steps import compute_dtype
from classlens.errors import ClasslensError
from classlens.forward.active_edits import Replacements, active_edits, noting_replacements
from classlens.forward.edits.pooling import kept_tokens
from classlens.forward.model_state import ModelState
from classlens.forward.streaming import stream
from classlens.models.view import ModelView, Tokens

# All sites of the residual stream are sums of the first three (law 1), in the model's own order of addition.
_NAMES = ("embed", "attn_out", "mlp_out", "values", "attn_raw", "mlp_raw", "attn_joined", "mlp_joined")


class Recording:
    """Pixels, logits and activations of some images: embeddings, sublayer outputs, values.

    ``recording.state("resid_mid", 3, slice(0, 4))`` is ``[image, token, width]`` of the first four images.
    ``activations`` go by name and block. ``kept`` ``[image, token]`` are the tokens that the head may pool, None for
    all; ``batch_size`` is that of the pass.
    """

    def __init__(
        self,
        view: ModelView,
        tokens: Tokens,
        logits: Tensor,
        pixels: Tensor,
        activations: dict[tuple[str, int], Tensor],
        *,
        state: ModelState | None = None,
        replaced: Replacements | None = None,
        kept: Tensor | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.view = view
        self.tokens = tokens
        self.logits = logits
        self.pixels = pixels
        self._activations = activations
        self._active = active_edits(view.module)
        self._state = state
        self._replaced = Replacements() if replaced is None else replaced
        self.kept = kept
        self.batch_size = len(logits) if batch_size is None else batch_size

    def require_same_model(self) -> None:
        """Raises ClasslensError where weights have changed since: results would mix the weights of two models."""
        if self._state is not None and not self._state.same_weights(ModelState.of(self.view.module)):
            raise ClasslensError(
                f"the weights of model {self.view.name!r} have changed since these images ran, and results would mix "
                "old and new ones: trace the images again"
            )

    def require_same_logits(self, logits: Tensor, images: slice) -> None:
        """Raises ClasslensError where another pass of some images gave other logits than the recorded one."""
        recorded, logits = self.logits[images], logits.detach()
        # Attention in steps and fused attention round differently: up to a per mille, a few eps in half precision.
        tolerance = max(1e-3, 16 * torch.finfo(logits.dtype).eps) * max(1.0, float(recorded.abs().max()))
        if not float((logits - recorded).nan_to_num().abs().max()) <= tolerance:
            raise ClasslensError(
                f"model {self.view.name!r} gave these images other logits than when they were traced: something but "
                "its weights has changed, such as a hook or a setting; trace the images again"
            )

    def require_same_edits(self) -> None:
        """Raises ClasslensError where the model has other edits now: another pass would not be the recorded one."""
        if active_edits(self.view.module).edits != self._active.edits:
            names = ", ".join(type(edit).__name__ for edit in self._active.edits) or "no edits"
            raise ClasslensError(
                f"these images ran with {names}, and this explanation runs them again: call it within the same "
                "lens.edit(…), with the same edit objects"
            )

    def require_replaced(self, points: Collection[str], what: str) -> None:
        """Raises ClasslensError where an edit computes with what passes at one of these points."""
        computed = [point for point in points if point in self._active.computed]
        if computed:
            raise ClasslensError(
                f"{what} are not defined where an edit computes with what passes at {computed[0]}: give its EditStep "
                "replaces=True if it puts in constants, leave it out, or give a method by autograd, such as chefer"
            )

    @property
    def edited(self) -> bool:
        """Whether the images ran with edits."""
        return bool(self._active.edits)

    def edited_points(self) -> set[str]:
        """Points at which edits replaced something."""
        return self._replaced.points()

    def replaced(self, sublayer: str, block: int, images: slice, tokens: slice) -> Replaced | None:
        """Masks of what edits replaced in a sublayer, for some images and tokens; None without such an edit."""
        names = [field.name for field in fields(Replaced)]
        masks = {name: self._replaced.of(f"{sublayer}_{name}", block) for name in names}
        chosen = {name: mask[images, tokens] for name, mask in masks.items() if mask is not None}
        return Replaced(**chosen) if any(bool(mask.any()) for mask in chosen.values()) else None

    def query_weights(self, images: slice, positions: slice) -> Float[Tensor, "image query"] | None:
        """Weights of tokens that the head pools, 1 on average: 0 for those that an edit drops; None for equal ones."""
        if self.kept is None:
            return None
        kept = self.kept[images, positions].to(self.dtype)
        return None if kept.shape[1] == 1 else kept / kept.mean(dim=1, keepdim=True).clamp_min(1 / kept.shape[1])

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
    logits, kept, replaced = [], [], []
    for start in range(0, len(pixels), batch_size):
        keep = partial(_keep, activations, len(pixels), start)
        replaced.append(Replacements())
        with noting_replacements(replaced[-1]):
            logits.append(stream(view, pixels[start : start + batch_size], _NAMES, keep))
        mask = kept_tokens(view, len(logits[-1]), tokens.count)
        if mask is not None:
            kept.append(mask)
    return Recording(
        view,
        tokens,
        torch.cat(logits),
        pixels,
        activations,
        state=ModelState.of(view.module),
        replaced=Replacements.joined(replaced),
        kept=torch.cat(kept) if kept else None,
        batch_size=batch_size,
    )


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
