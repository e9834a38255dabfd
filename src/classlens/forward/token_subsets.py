"""Logits of images with some tokens removed: by shorter sequences where a model takes them, else by an edit."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.errors import ClasslensError
from classlens.forward.edits.edit import editing
from classlens.forward.edits.keep_tokens import KeepTokens
from classlens.forward.hooks import replacing
from classlens.forward.run import run
from classlens.models.view import ModelView


class TokenSubsets:
    """Class logits of images reduced to some of their tokens, which keep their position embeddings.

        subsets = TokenSubsets(view, pixels)
        subsets.logits(image, tokens)     # row r keeps the tokens tokens[r] of image[r]

    Tokens are embedded once. Where the blocks and the head take a sequence of any length, they run on the kept tokens
    alone, and work falls with their number. Whether they do is measured against ``KeepTokens``, unless ``shorten``
    says so. Models whose attention knows positions (rotary embeddings, relative biases) run on all tokens, with
    ``KeepTokens``.
    """

    def __init__(
        self, view: ModelView, pixels: Float[Tensor, "image channel height width"], *, shorten: bool | None = None
    ) -> None:
        self._view = view
        self._pixels = pixels.to(view.device, view.dtype)
        self.count = view.tokens((int(pixels.shape[2]), int(pixels.shape[3]))).count
        self._embeddings = _embeddings(view, self._pixels)
        self.shortens = self._both_agree() if shorten is None else shorten

    def logits(self, image: Int[Tensor, " row"], tokens: Int[Tensor, "row kept"]) -> Float[Tensor, "row classes"]:
        """The model's own logits; ``tokens`` are indices of kept tokens, in rising order."""
        image, tokens = image.to(self._view.device), tokens.to(self._view.device)
        return self._shortened(image, tokens) if self.shortens else self._masked(image, tokens)

    def _shortened(self, image: Tensor, tokens: Tensor) -> Tensor:
        rows = self._embeddings[image[:, None], tokens]
        first = self._view.blocks[0].points["resid_pre"]
        # These rows replace what the model embeds, so it embeds one image only.
        with replacing(first, lambda _, __: rows, first=True):
            return run(self._view, self._pixels[:1])

    def _masked(self, image: Tensor, tokens: Tensor) -> Tensor:
        mask = torch.zeros(len(image), self.count, dtype=torch.bool, device=tokens.device).scatter_(1, tokens, True)
        with editing(self._view, [KeepTokens(mask)]):
            return run(self._view, self._pixels[image])

    def _both_agree(self) -> bool:
        """Whether shorter sequences give the logits of ``KeepTokens`` up to rounding, on two of the images."""
        prefix = len(self._view.prefix)
        images = torch.arange(min(2, len(self._pixels)), device=self._view.device)
        order = torch.randperm(self.count - prefix, generator=torch.Generator().manual_seed(0)) + prefix
        half = order[: max(1, len(order) // 2)].sort().values
        tokens = torch.cat([torch.arange(prefix), half]).expand(len(images), -1).to(self._view.device)
        masked = self._masked(images, tokens)
        try:
            shortened = self._shortened(images, tokens)
        except Exception:  # a model may fail in any way on a sequence of another length
            return False
        tolerance = min(2.0**10 * torch.finfo(self._view.dtype).eps, 0.05) * max(1.0, float(masked.abs().max()))
        return shortened.shape == masked.shape and bool((shortened - masked).abs().max() <= tolerance)


def _embeddings(view: ModelView, pixels: Tensor) -> Float[Tensor, "image token width"]:
    """The tokens that enter the first block."""
    embeddings: list[Tensor] = []

    def stop(block: int, x: Tensor) -> None:
        if block == 0:
            embeddings.append(x)
            raise _Embedded

    try:
        run(view, pixels, {"resid_pre": stop})
    except _Embedded:
        return embeddings[0]
    raise ClasslensError(f"the first block of model {view.name!r} was not run: check how the model is described")


class _Embedded(Exception):
    """Ends a pass before the first block."""
