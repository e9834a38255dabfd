"""Logit attribution: a class logit as the exact sum of what every part of the model adds to it (law 3)."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from classlens.core.attention import Functional, head_contributions
from classlens.core.maps import compute_dtype
from classlens.core.space import ClassOrWeights, select_classes
from classlens.forward.hooks import evaluating, watching
from classlens.forward.recording import Recording

# Attention weights held at once: 64 MiB in float32.
_WEIGHTS = 16 * 2**20


@dataclass(frozen=True)
class Attribution:
    """``embed + Σ attention + Σ mlp + bias = logit``; ``attention`` is by block, head and the token attended to."""

    embed: Float[Tensor, " image"]
    attention: Float[Tensor, "image block head token"]
    mlp: Float[Tensor, "image block"]
    bias: Float[Tensor, " image"]


def attribute(recording: Recording, target: ClassOrWeights) -> Attribution:
    """Logit attribution, of a class or of a weighted sum of logits, with the scale of every norm frozen at its value
    (design, law 3)."""
    heads = max(block.heads for block in recording.view.blocks)
    step = max(1, _WEIGHTS // (heads * recording.tokens.count**2))
    parts = [
        _attribute(recording, target[start : start + step], slice(start, start + step))
        for start in range(0, len(target), step)
    ]
    names = [field.name for field in fields(Attribution)]
    return Attribution(*(torch.cat([getattr(part, name) for part in parts]).cpu() for name in names))


def _attribute(recording: Recording, target: Tensor, part: slice) -> Attribution:
    view = recording.view
    last = recording.state("resid_post", len(view.blocks) - 1, part)
    worths = []
    bias = last.new_zeros(len(last), dtype=compute_dtype(last.dtype))
    for readout in view.readouts:
        direction, weights, constant = readout.space.frozen(last[:, readout.pooled], target)
        if not readout.counts_bias and readout.space.bias is not None:
            constant = constant - select_classes(readout.space.bias.to(constant.dtype), target)
        bias = bias + constant * readout.weight
        worths.append((readout.pooled, Functional(direction, weights * readout.weight)))
    attention: list[Tensor] = []

    def attend(number: int, pattern: Tensor) -> None:
        """The contributions of one block's heads while the model runs again, its attention weights dropped at once."""
        nonlocal bias
        total: Tensor | float = 0.0
        for tokens, worth in worths:
            inside = (recording.inside(name, number, part, tokens) for name in ("attn_raw", "attn_joined"))
            through, constant = worth.through(view.blocks[number].attn, *inside)
            values = recording.states("values", number)[part]
            total = total + head_contributions(through, attention=pattern[:, :, tokens], values=values)
            bias = bias + constant
        assert isinstance(total, Tensor)
        attention.append(total)

    pixels = recording.pixels[part].to(view.device, view.dtype)
    with evaluating(view.module), view.unfused(), watching(view, {"attention": attend}):
        view.run(pixels)
    mlp = []
    for number, block in enumerate(view.blocks):
        added = torch.zeros_like(bias)
        for tokens, worth in worths:
            inside = (recording.inside(name, number, part, tokens) for name in ("mlp_raw", "mlp_joined"))
            _, constant = worth.through(block.mlp, *inside)
            added = added + worth(recording.states("mlp_out", number)[part, tokens]) - constant
            bias = bias + constant
        mlp.append(added)
    embed = sum(worth(recording.states("embed", 0)[part, tokens]) for tokens, worth in worths)
    assert isinstance(embed, Tensor)
    return Attribution(embed, torch.stack(attention, dim=1), torch.stack(mlp, dim=1), bias)
