"""Means by a loop over images, with hooks of one's own on the modules of timm, in float64."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Values = dict[str, Tensor]


@contextmanager
def caught(module: Any) -> Iterator[Values]:
    """Activations in one image's run by point and block, ``[token, channel]``."""
    seen: Values = {}

    def output(key: str) -> Callable[..., None]:
        return lambda _, __, out: seen.__setitem__(key, out[0])

    def argument(key: str) -> Callable[..., None]:
        return lambda _, args: seen.__setitem__(key, args[0][0])

    handles = []
    for number, block in enumerate(module.blocks):
        handles += [
            # Identities in evaluation mode: what they pass on is added to the residual stream.
            block.drop_path1.register_forward_hook(output(f"attn_out.{number}")),
            block.drop_path2.register_forward_hook(output(f"mlp_out.{number}")),
            block.attn.proj.register_forward_pre_hook(argument(f"attn_coefficients.{number}")),
            block.mlp.fc2.register_forward_pre_hook(argument(f"mlp_coefficients.{number}")),
        ]
        if not isinstance(block.attn.norm, nn.Identity):
            handles.append(block.attn.norm.register_forward_pre_hook(argument(f"attn_joined.{number}")))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def means_of(module: Any, pixels: Tensor) -> Values:
    totals: Values = {}
    with caught(module) as seen:
        for image in pixels:
            module(image[None])
            for key, x in seen.items():
                totals[key] = totals.get(key, torch.zeros_like(x)) + x
    return {key: total / len(pixels) for key, total in totals.items()}


@torch.no_grad()
def class_means_of(module: Any, pixels: Tensor, labels: list[int], prefix: int) -> dict[int, Values]:
    """For each class, every prefix token and last the mean of all image tokens, ``[token kind, channel]``."""
    tokens: dict[tuple[int, str, int], list[Tensor]] = defaultdict(list)
    with caught(module) as seen:
        for image, label in zip(pixels, labels, strict=True):
            module(image[None])
            for key, x in seen.items():
                for position, token in enumerate(x):
                    tokens[label, key, min(position, prefix)].append(token)
    found: dict[int, Values] = {}
    for label, key, _ in tokens:
        rows = [torch.stack(tokens[label, key, kind]).mean(dim=0) for kind in range(prefix + 1)]
        found.setdefault(label, {})[key] = torch.stack(rows)
    return found
