"""Reducing every token to facts while the model runs, its states dropped at once."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.scores import BlockFacts, Facts
from classlens.hooks.capture import evaluating, watching
from classlens.models.view import ModelView

Put = Callable[[str, int, Tensor | slice, Facts], None]


def reduce(
    view: ModelView,
    pixels: Float[Tensor, "image channel height width"],
    target: Int[Tensor, " image"],
    sites: Collection[str],
    put: Put,
) -> Float[Tensor, "image category"]:
    """One forward pass; ``put(site, block, tokens, facts)`` takes facts as rows, image by image. Returns the logits.

    Beside the pass itself, memory holds one ``[rows, classes]`` buffer (see ``BlockFacts``).
    """
    size = view.tokens((int(pixels.shape[2]), int(pixels.shape[3])))
    parts: list[tuple[Tensor | slice, BlockFacts]] = []
    for space, group in view.spaces(size.count):
        count = size.count if isinstance(group, slice) else len(group)
        rows = target.to(view.device).repeat_interleave(count)
        parts.append((group, BlockFacts(space, rows, sites)))

    def feed(name: str, number: int, x: Tensor) -> None:
        if name == "embed" and number > 0:
            return
        for group, made in parts:
            for site, block, found in made.feed(name, x[:, group].flatten(0, 1)):  # type: ignore[arg-type]
                put(site, block, group, found)

    receivers = {"resid_pre": partial(feed, "embed"), "attn_out": partial(feed, "attn_out")}
    receivers["mlp_out"] = partial(feed, "mlp_out")
    with evaluating(view.module), watching(view, receivers):
        return view.run(pixels.to(view.device, view.dtype))
