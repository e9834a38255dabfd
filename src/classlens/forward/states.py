"""The tokens at every site of every block, handed over while the model runs."""

from __future__ import annotations

from collections.abc import Callable, Collection

from jaxtyping import Float
from torch import Tensor

from classlens.forward.hooks import evaluating, watching
from classlens.models.view import ModelView


def read_states(
    view: ModelView,
    pixels: Float[Tensor, "image channel height width"],
    sites: Collection[str],
    receive: Callable[[str, int, Tensor], None],
) -> Float[Tensor, "image category"]:
    """One forward pass; ``receive(site, block, tokens)`` is given ``[image, token, width]``. Returns the logits.

        read_states(view, pixels, ["attn_out", "resid_post"], lambda site, block, tokens: ...)

    Sums are made as a trace makes them (law 1); nothing is kept.
    """
    stream: list[Tensor] = []

    def give(site: str, block: int, x: Tensor) -> None:
        if site in sites:
            receive(site, block, x)

    def begin(block: int, x: Tensor) -> None:
        if block == 0:
            stream[:] = [x]
            give("embed", 0, x)
        give("resid_pre", block, stream[0])

    def add(site: str, after: str, block: int, x: Tensor) -> None:
        give(site, block, x)
        stream[0] = stream[0] + x
        give(after, block, stream[0])

    receivers = {
        "resid_pre": begin,
        "attn_out": lambda block, x: add("attn_out", "resid_mid", block, x),
        "mlp_out": lambda block, x: add("mlp_out", "resid_post", block, x),
    }
    with evaluating(view.module), watching(view, receivers):
        return view.run(pixels.to(view.device, view.dtype))
