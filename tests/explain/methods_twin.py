"""Slow twins of explanation methods, written from their papers over timm's own modules; nothing imports classlens.

Each takes a model, one image's pass through it, a class, the tokens that the head pools and the image tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tests import literal

Matrix = list[list[float]]


class Pass(NamedTuple):
    """One image's forward pass, written out, with its graph."""

    logits: Tensor
    attention: list[Tensor]
    before: list[Tensor]
    after: list[Tensor]


def written_out(model: Any, pixels: Tensor) -> Pass:
    """Attention as a product of weights and values, so that autograd can be asked for either."""
    x = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(pixels))))
    attention, before, after = [], [], []
    for block in model.blocks:
        before.append(x)
        weights, values = literal.attention_parts(block, x)
        attention.append(weights)
        joined = (weights @ values).transpose(1, 2).flatten(2)
        raw = block.attn.proj(joined)
        x = x + (block.norm1(raw) if literal.is_post_norm(block) else block.ls1(raw))
        x = x + literal.mlp_sublayer(block, x)
        after.append(x)
    return Pass(model.forward_head(model.norm(x)), attention, before, after)


def product(left: Matrix, right: Matrix) -> Matrix:
    return [[sum(a * right[k][j] for k, a in enumerate(row)) for j in range(len(right[0]))] for row in left]


def identity(size: int) -> Matrix:
    return [[float(i == j) for j in range(size)] for i in range(size)]


def pooled_row(matrix: Matrix, pooled: tuple[int, ...], image: list[int]) -> list[float]:
    return [sum(matrix[query][token] for query in pooled) / len(pooled) for token in image]


def attention(model: Any, record: Pass, target: int, pooled: tuple[int, ...], image: list[int]) -> list[float]:
    weights = record.attention[-1][0].tolist()
    heads = len(weights)
    size = len(weights[0])
    mean = [[sum(head[i][j] for head in weights) / heads for j in range(size)] for i in range(size)]
    return pooled_row(mean, pooled, image)


def rollout(model: Any, record: Pass, target: int, pooled: tuple[int, ...], image: list[int]) -> list[float]:
    """Abnar and Zuidema: attention and the residual connection, half each, multiplied over layers."""
    rolled: Matrix | None = None
    for weights in record.attention:
        heads = weights[0].tolist()
        size = len(heads[0])
        mixed = [
            [0.5 * sum(head[i][j] for head in heads) / len(heads) + 0.5 * (i == j) for j in range(size)]
            for i in range(size)
        ]
        rolled = mixed if rolled is None else product(mixed, rolled)
    assert rolled is not None
    return pooled_row(rolled, pooled, image)


def chefer(model: Any, record: Pass, target: int, pooled: tuple[int, ...], image: list[int]) -> list[float]:
    """Chefer, Gur and Wolf 2021: R ← R + Ā R with Ā the mean over heads of the positive part of gradient ×
    attention."""
    relevance: Matrix | None = None
    for weights in record.attention:
        (gradient,) = torch.autograd.grad(record.logits[0, target], weights, retain_graph=True)
        a, g = weights[0].tolist(), gradient[0].tolist()
        size = len(a[0])
        relevance = relevance or identity(size)
        bar = [
            [sum(max(0.0, a[h][i][j] * g[h][i][j]) for h in range(len(a))) / len(a) for j in range(size)]
            for i in range(size)
        ]
        added = product(bar, relevance)
        relevance = [[relevance[i][j] + added[i][j] for j in range(size)] for i in range(size)]
    assert relevance is not None
    return pooled_row(relevance, pooled, image)


def grad_cam(model: Any, record: Pass, target: int, pooled: tuple[int, ...], image: list[int]) -> list[float]:
    """Selvaraju et al. 2017 on the tokens that enter the last block."""
    x = record.before[-1]
    (gradient,) = torch.autograd.grad(record.logits[0, target], x, retain_graph=True)
    channels = range(x.shape[-1])
    alpha = [sum(float(gradient[0, token, k]) for token in image) / len(image) for k in channels]
    return [max(0.0, sum(alpha[k] * float(x[0, token, k].detach()) for k in channels)) for token in image]


def legrad(model: Any, record: Pass, target: int, pooled: tuple[int, ...], image: list[int]) -> list[float]:
    """Bousselham et al. 2025: the mean over layers, heads and queries of the positive gradient of each layer's
    logit, which is that of the mean over all its tokens."""
    return _legrad(record, target, image, lambda x: model.head(model.fc_norm(model.norm(x.mean(dim=1)))))


def legrad_by_head(model: Any, record: Pass, target: int, pooled: tuple[int, ...], image: list[int]) -> list[float]:
    """The same with the logit of a layer as the model's own head makes it."""
    return _legrad(record, target, image, lambda x: model.forward_head(model.norm(x)))


def _legrad(record: Pass, target: int, image: list[int], logits: Callable[[Tensor], Tensor]) -> list[float]:
    total = [0.0] * len(image)
    for weights, x in zip(record.attention, record.after, strict=True):
        logit = logits(x)[0, target]
        (gradient,) = torch.autograd.grad(logit, weights, retain_graph=True)
        g = gradient[0].tolist()
        for position, token in enumerate(image):
            positive = sum(max(0.0, row[token]) for head in g for row in head)
            total[position] += positive / (len(g) * len(g[0])) / len(record.attention)
    return total
