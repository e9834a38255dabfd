"""Sequences in which only some of the tokens are left: truly shorter where a model can take them, else by edits."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.errors import ClasslensError
from classlens.forward.edits.edits import KeepTokens, editing
from classlens.forward.hooks import evaluating, replacing, watching
from classlens.models.view import ModelView


class Shortened:
    """Class logits of some images of which some tokens are kept, position embeddings and all.

        short = Shortened(view, pixels)
        short.logits(image, kept)     # kept[r] are the tokens that are left of image[r]

    Tokens are embedded once. Where the blocks and the head take a sequence of any length, they run on the kept tokens
    alone, so that work falls with their number; whether they do is tried out, against ``KeepTokens`` (``trust`` leaves
    that out). Models whose attention knows positions (rotary embeddings, relative biases) run whole, with
    ``KeepTokens``.
    """

    def __init__(
        self, view: ModelView, pixels: Float[Tensor, "image channel height width"], *, trust: bool | None = None
    ) -> None:
        self._view = view
        self._pixels = pixels.to(view.device, view.dtype)
        self.count = view.tokens((int(pixels.shape[2]), int(pixels.shape[3]))).count
        self._embedded = _embedded(view, self._pixels)
        self.shortens = self._agrees() if trust is None else trust

    def logits(self, image: Int[Tensor, " row"], kept: Int[Tensor, "row kept"]) -> Float[Tensor, "row classes"]:
        """The model's own logits; ``kept`` are places in the sequence, in rising order."""
        image, kept = image.to(self._view.device), kept.to(self._view.device)
        return self._short(image, kept) if self.shortens else self._masked(image, kept)

    def _short(self, image: Tensor, kept: Tensor) -> Tensor:
        rows = self._embedded[image[:, None], kept]
        first = self._view.blocks[0].points["resid_pre"]
        # What was embedded takes the place of what the model embeds, so one image is enough for it to embed.
        with evaluating(self._view.module), replacing(first, lambda _, __: rows, first=True):
            return self._view.run(self._pixels[:1])

    def _masked(self, image: Tensor, kept: Tensor) -> Tensor:
        mask = torch.zeros(len(image), self.count, dtype=torch.bool, device=kept.device).scatter_(1, kept, True)
        with evaluating(self._view.module), editing(self._view, [KeepTokens(mask)]):
            return self._view.run(self._pixels[image])

    def _agrees(self) -> bool:
        """Whether shorter sequences give what ``KeepTokens`` gives, but for rounding, on two of the images."""
        prefix = len(self._view.prefix)
        images = torch.arange(min(2, len(self._pixels)))
        order = torch.randperm(self.count - prefix, generator=torch.Generator().manual_seed(0)) + prefix
        some = order[: max(1, len(order) // 2)].sort().values
        kept = torch.cat([torch.arange(prefix), some]).expand(len(images), -1).to(self._view.device)
        whole = self._masked(images.to(kept.device), kept)
        try:
            short = self._short(images.to(kept.device), kept)
        except Exception:  # what a model does with a sequence of another length is not bounded
            return False
        slack = min(2.0**10 * torch.finfo(self._view.dtype).eps, 0.05) * max(1.0, float(whole.abs().max()))
        return short.shape == whole.shape and bool((short - whole).abs().max() <= slack)


def _embedded(view: ModelView, pixels: Tensor) -> Float[Tensor, "image token width"]:
    """What enters the first block."""
    found: list[Tensor] = []

    def keep(block: int, x: Tensor) -> None:
        if block == 0:
            found.append(x)
            raise _Enough

    try:
        with evaluating(view.module), watching(view, {"resid_pre": keep}):
            view.run(pixels)
    except _Enough:
        return found[0]
    raise ClasslensError(f"the first block of model {view.name!r} was not run: check how the model is described")


class _Enough(Exception):
    """Ends a pass once all that is wanted has passed."""
