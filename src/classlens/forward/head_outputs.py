"""The direct contribution of every head to the input of the model's linear head, as vectors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from classlens.core.attention import Output
from classlens.forward.run import run
from classlens.models.view import ModelView


def head_outputs(
    view: ModelView, pixels: Float[Tensor, "image channel height width"], blocks: Sequence[int]
) -> Float[Tensor, "image block head outer"]:
    """Addition of each head to the classifier's input, without biases, with the scale of every norm frozen.

    For a model with one readout and without edits. Raises ClasslensError where it pools by attention.
    """
    (readout,) = view.readouts
    passed: dict[tuple[str, int], Tensor] = {}

    def receive(name: str, block: int, x: Tensor) -> None:
        if block in blocks or (name == "resid_post" and block == len(view.blocks) - 1):
            passed[name, block] = x[:, readout.pooled].to(torch.float64 if x.dtype == torch.float64 else torch.float32)

    names = ("resid_post", "attn_coefficients", "attn_joined", "attn_raw")
    run(view, pixels, {name: partial(receive, name) for name in names}, exposing_coefficients=True)
    matrix, weights = readout.space.frozen_input(passed["resid_post", len(view.blocks) - 1])
    result = []
    for block in blocks:
        described = view.blocks[block]
        raw, joined = (passed.get((name, block)) for name in ("attn_raw", "attn_joined"))
        through, scale = _through(described.attn, matrix, raw, joined)
        units = passed["attn_coefficients", block] if joined is None else joined
        pooled = torch.einsum("iq,iqu->iu", weights if scale is None else weights * scale, units)
        heads = (part.unflatten(1, (described.heads, -1)) for part in (pooled, through))
        result.append(torch.einsum("ihc,ohc->iho", *heads))
    return torch.stack(result, dim=1)


def _through(
    output: Output,
    matrix: Float[Tensor, "outer width"],
    raw: Float[Tensor, "image query width"] | None,
    joined: Float[Tensor, "image query unit"] | None,
) -> tuple[Float[Tensor, "outer unit"], Float[Tensor, "image query"] | None]:
    """The same linear map, of the joined heads, and the scales of attention's own norms at each query."""
    scale = None
    if output.norm is not None:
        assert raw is not None
        matrix, scale = output.norm.pull(matrix), output.norm.inverse_scale(raw)[..., 0]
    elif output.scale is not None:
        matrix = matrix * output.scale.to(matrix)
    through = matrix @ output.weight.to(matrix)
    if output.inner is None:
        return through, scale
    assert joined is not None
    inner = output.inner.inverse_scale(joined)[..., 0]
    return output.inner.pull(through), inner if scale is None else inner * scale
