"""A forward pass in loops over images, tokens and heads, in which every edit is made as its definition says.

The stream of an image is a dict from token to vector, so that a dropped token is really not there. Nothing here imports
classlens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tests import zoo
from tests.literal import is_post_norm

States = list[dict[int, Tensor]]
Row = dict[int, Tensor]


def _row_as_it_is(image: int, block: int, head: int, query: int, row: Row) -> Row:
    return row


def _nothing(block: int, states: States) -> None:
    return None


@dataclass
class Changes:
    """What is done at each place; functions of states change them in place."""

    kept: Callable[[int, int], bool] = lambda image, token: True
    row: Callable[[int, int, int, int, Row], Row] = _row_as_it_is
    places: dict[str, Callable[[int, States], None]] = field(default_factory=dict)
    """At ``joined`` (heads), ``hidden`` (units), ``attn_out``, ``mlp_out``, ``resid_post``; and ``embed``."""


@dataclass
class Run:
    """The logits ``[image, category]`` and all that passed, by place and block."""

    logits: Tensor
    seen: dict[tuple[str, int], States]


@torch.no_grad()
def slow(name: str, model: Any, pixels: Tensor, changes: Changes | None = None) -> Run:
    """Run a variant of the zoo by hand."""
    done = changes or Changes()
    seen: dict[tuple[str, int], States] = {}

    def at(place: str, block: int, states: States) -> States:
        done.places.get(place, _nothing)(block, states)
        seen[place, block] = [dict(tokens) for tokens in states]
        return states

    embedded = model.norm_pre(model._pos_embed(model.patch_embed(pixels)))
    stream: States = [
        {token: image[token] for token in range(len(image)) if done.kept(number, token)}
        for number, image in enumerate(embedded)
    ]
    at("embed", 0, stream)
    for number, block in enumerate(model.blocks):
        post = is_post_norm(block)
        joined = [_attend(block, number, image, tokens, done) for image, tokens in enumerate(stream)]
        at("joined", number, joined)
        added = _each(joined, block.attn.proj)
        added = at("attn_out", number, _each(added, block.norm1 if post else block.ls1))
        middle = _sum(stream, added)
        hidden = _each(middle if post else _each(middle, block.norm2), block.mlp.fc1)
        hidden = at("hidden", number, _each(hidden, block.mlp.act))
        added = _each(hidden, block.mlp.fc2)
        added = at("mlp_out", number, _each(added, block.norm2 if post else block.ls2))
        stream = at("resid_post", number, _sum(middle, added))
    rows = []
    for tokens in stream:
        pooled = [model.norm(tokens[token]) for token in zoo.VARIANTS[name].pooled if token in tokens]
        rows.append(model.head(model.fc_norm(torch.stack(pooled).mean(dim=0))))
    return Run(torch.stack(rows), seen)


def _each(states: States, function: Callable[[Tensor], Tensor]) -> States:
    return [{token: function(x) for token, x in tokens.items()} for tokens in states]


def _sum(states: States, others: States) -> States:
    return [
        {token: x + other[token] for token, x in tokens.items()} for tokens, other in zip(states, others, strict=True)
    ]


def _attend(block: Any, number: int, image: int, tokens: dict[int, Tensor], done: Changes) -> dict[int, Tensor]:
    """The outputs of all heads, joined, of each token."""
    attn = block.attn
    channels = attn.head_dim
    parts = {}
    for token, x in tokens.items():
        given = x if is_post_norm(block) else block.norm1(x)
        parts[token] = attn.qkv(given).chunk(3)
    found: dict[int, list[Tensor]] = {token: [] for token in tokens}
    for head in range(attn.num_heads):
        own = slice(head * channels, (head + 1) * channels)
        for query in tokens:
            q = attn.q_norm(parts[query][0][own])
            scores = {key: (q * attn.k_norm(parts[key][1][own])).sum() / channels**0.5 for key in tokens}
            total = sum(score.exp() for score in scores.values())
            row = done.row(image, number, head, query, {key: score.exp() / total for key, score in scores.items()})
            found[query].append(torch.stack([row[key] * parts[key][2][own] for key in tokens]).sum(dim=0))
    return {token: torch.cat(heads) for token, heads in found.items()}
