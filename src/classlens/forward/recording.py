"""What is kept of a forward pass: the parts of the residual stream, and the values of every head."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from classlens.core.maps import compute_dtype
from classlens.forward.hooks import Receiver, evaluating, watching
from classlens.models.view import ModelView, Tokens

# Sums of these are all sites of the residual stream (law 1), in the model's own order of addition.
_KEPT = ("attn_out", "mlp_out", "values", "attn_raw", "mlp_raw", "attn_joined", "mlp_joined")


class Recording:
    """One forward pass over some images: pixels, embeddings, sublayer outputs, values and logits; the rest is added up.

    ``recording.state("resid_mid", 3, slice(0, 4))`` is ``[image, token, width]`` of the first four images.
    """

    def __init__(
        self, view: ModelView, tokens: Tokens, logits: Tensor, pixels: Tensor, kept: dict[str, list[Tensor]]
    ) -> None:
        self.view = view
        self.tokens = tokens
        self.logits = logits
        self.pixels = pixels
        self._kept = kept

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def dtype(self) -> torch.dtype:
        """Of results: float32 at least."""
        return compute_dtype(self.view.dtype)

    def states(self, name: str, block: int) -> Tensor:
        """What was kept of a block: ``embed`` (block 0), ``attn_out``, ``mlp_out``, ``values``; all images."""
        return self._kept[name][block]

    def inside(self, name: str, block: int, part: slice, tokens: slice) -> Tensor | None:
        """``attn_raw``, ``mlp_raw``, ``attn_joined`` or ``mlp_joined`` of some tokens, None where blocks have none."""
        kept = self._kept.get(name)
        return None if not kept else kept[block][part, tokens]

    def sublayers(self, part: slice) -> Iterator[tuple[Tensor, Tensor]]:
        """``(attn_out, mlp_out)`` of each block in turn, for some images."""
        for attn, mlp in zip(self._kept["attn_out"], self._kept["mlp_out"], strict=True):
            yield attn[part], mlp[part]

    def walk(self, site: str, part: slice) -> Iterator[tuple[int, Tensor]]:
        """``(block, [image, token, width])`` of a site at every block in turn, for some images."""
        x = self._kept["embed"][0][part]
        if site == "embed":
            yield 0, x
            return
        for block, (attn, mlp) in enumerate(self.sublayers(part)):
            middle = x + attn
            after = middle + mlp
            yield (
                block,
                {"resid_pre": x, "attn_out": attn, "resid_mid": middle, "mlp_out": mlp, "resid_post": after}[site],
            )
            x = after

    def state(self, site: str, block: int, part: slice) -> Tensor:
        """A site at one block, for some images."""
        return next(state for number, state in self.walk(site, part) if number == block)


def record(view: ModelView, pixels: Tensor, *, batch_size: int = 32) -> Recording:
    """Run the model over ``pixels`` (``[image, channel, height, width]``) and keep what a trace needs."""
    tokens = view.tokens((int(pixels.shape[2]), int(pixels.shape[3])))
    total = len(pixels)
    kept: dict[str, list[Tensor]] = {}
    logits: list[Tensor] = []
    for start in range(0, total, batch_size):
        keep = partial(_keep, kept, total, start)
        receivers: dict[str, Receiver] = {name: partial(keep, name) for name in _KEPT}
        receivers["resid_pre"] = partial(_first, partial(keep, "embed"))
        batch = pixels[start : start + batch_size].to(view.device, view.dtype)
        with evaluating(view.module), watching(view, receivers):
            logits.append(view.run(batch))
    return Recording(view, tokens, torch.cat(logits), pixels, kept)


def _first(keep: Receiver, block: int, x: Tensor) -> None:
    if block == 0:
        keep(block, x)


def _keep(kept: dict[str, list[Tensor]], total: int, start: int, name: str, block: int, x: Tensor) -> None:
    """Keep a batch of all images as it is; write batches that follow one another into one tensor a block."""
    blocks = kept.setdefault(name, [])
    if len(x) == total:
        blocks.append(x)
        return
    if start == 0:
        blocks.append(x.new_empty(total, *x.shape[1:]))
    blocks[block][start : start + len(x)] = x
