"""Attention weights of a recorded pass, some images and blocks at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.explain.batching import pass_groups, slices
from classlens.forward.recording import Recording
from classlens.forward.run import run

# Numbers of one tensor of weights: 64 MiB in float32.
_WEIGHTS = 2**24


def attention_rows(
    recording: Recording, queries: Int[Tensor, " query"], blocks: Sequence[int]
) -> Iterator[tuple[slice, int, Float[Tensor, "image head query token"]]]:
    """``(images, block, weights)`` of some queries in some blocks, one group of images after another.

    They are those of the recorded pass. Where it had attention in steps, and the queries are not those that it kept,
    the model runs once more.
    """
    recording.require_same_model()
    heads = max(block.heads for block in recording.view.blocks)
    per_image = heads * recording.tokens.count * len(queries)
    if recording.has_rows(queries):
        for images in slices(len(recording), _WEIGHTS // per_image):
            for block in blocks:
                yield images, block, recording.rows(block, images, queries)
        return
    recording.require_same_edits()
    chosen = queries.to(recording.view.device)
    for images in pass_groups(recording, _WEIGHTS // (per_image * len(blocks))):
        held: dict[int, Tensor] = {}

        def receive(block: int, weights: Tensor, held: dict[int, Tensor] = held) -> None:
            if block in blocks:
                held[block] = weights[:, :, chosen].to(recording.dtype)

        logits = run(recording.view, recording.pixels[images], {"attention": receive}, unfused=True)
        recording.require_same_logits(logits, images)
        for block in blocks:
            yield images, block, held.pop(block)


def every_query(recording: Recording) -> Int[Tensor, " query"]:
    """The positions of all tokens."""
    return torch.arange(recording.tokens.count)
