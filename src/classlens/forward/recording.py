"""Activations of a forward pass, kept to be projected and explained later."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.attention import Replaced
from classlens.core.steps import compute_dtype
from classlens.errors import ClasslensError
from classlens.forward.active_edits import Replacements, active_edits
from classlens.forward.model_state import ModelState
from classlens.models.view import SCORE_POINTS, SHARED_POINTS, ModelView, Tokens


class Recording:
    """Pixels, logits and activations of some images: embeddings, sublayer outputs, values.

    ``recording.state("resid_mid", 3, slice(0, 4))`` is ``[image, token, width]`` of the first four images.
    ``activations`` go by name and block. ``kept`` ``[image, token]`` are the tokens that the head may pool, None for
    all; ``batch_size`` is that of the pass. ``queries`` are those whose attention weights are kept, None where they are
    kept for all or for none.
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
        queries: Int[Tensor, " query"] | None = None,
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
        self._queries = queries

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

    def has_rows(self, queries: Int[Tensor, " query"]) -> bool:
        """Whether the attention weights of some queries are known from this pass."""
        if self._queries is not None:
            return bool(torch.isin(queries, self._queries).all())
        return any((name, 0) in self._activations for name in SCORE_POINTS)

    def rows(
        self, block: int, images: slice, queries: Int[Tensor, " query"]
    ) -> Float[Tensor, "image head query token"]:
        """Attention weights of some queries, for some images, in the precision of results; see ``has_rows``."""
        queries = queries.to(self.view.device)
        if self._queries is not None:
            kept = torch.searchsorted(self._queries.to(queries.device), queries)
            return self._activations["attention", block][images][:, :, kept].to(self.dtype)
        passed = {
            name: self._activations[name, block][images if name in SCORE_POINTS else slice(None)].to(self.dtype)
            for name in (*SCORE_POINTS, *SHARED_POINTS)
            if (name, block) in self._activations
        }
        return self.view.blocks[block].scores(passed, queries).softmax(dim=-1)

    def sublayer_outputs(self, images: slice) -> Iterator[tuple[Tensor, Tensor]]:
        """``(attn_out, mlp_out)`` of each block in turn, for some images."""
        for block in range(len(self.view.blocks)):
            yield self.activation("attn_out", block)[images], self.activation("mlp_out", block)[images]

    def walk(self, site: str, images: slice, tokens: slice | Tensor = slice(None)) -> Iterator[tuple[int, Tensor]]:
        """``(block, [image, token, width])`` of a site at every block in turn, for some images and tokens."""
        before = self.activation("embed", 0)[images][:, tokens]
        if site == "embed":
            yield 0, before
            return
        for block, outputs in enumerate(self.sublayer_outputs(images)):
            attn, mlp = (output[:, tokens] for output in outputs)
            middle = before + attn
            after = middle + mlp
            states = {"resid_pre": before, "attn_out": attn, "resid_mid": middle, "mlp_out": mlp, "resid_post": after}
            yield block, states[site]
            before = after

    def state(self, site: str, block: int, images: slice, tokens: slice | Tensor = slice(None)) -> Tensor:
        """``[image, token, width]`` of a site at one block, for some images and tokens."""
        return next(state for number, state in self.walk(site, images, tokens) if number == block)
