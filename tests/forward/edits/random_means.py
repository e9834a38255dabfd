"""Means that no data set gave: random values in float64, at every point of a model."""

from __future__ import annotations

import torch

from classlens import Means, ModelView
from classlens.models.digest import weights_digest


def random_means(view: ModelView, *, seed: int = 6) -> Means:
    generator = torch.Generator().manual_seed(seed)
    tokens = view.tokens(view.input_size)
    values = {}
    for number, block in enumerate(view.blocks):
        for sublayer, output in (("attn", block.attn), ("mlp", block.mlp)):
            width, units = output.weight.shape
            for place, channels in (("out", width), ("coefficients", units), ("joined", units)):
                given = torch.randn(tokens.count, channels, generator=generator, dtype=torch.float64)
                values[f"{sublayer}_{place}.{number}"] = given
    return Means(view.name, weights_digest(view), "drawn", 1, tokens, values)
