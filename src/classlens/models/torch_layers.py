"""Layers that torch itself defines and several libraries build Vision Transformers of: norms, multi-head attention."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NoReturn

from torch import Tensor, nn
from torch.nn import functional as F

from classlens.core.attention import Output
from classlens.core.maps import Norm, detached
from classlens.models.view import Point

Refuse = Callable[[str], NoReturn]


def norms(module: nn.Module, refuse: Refuse) -> tuple[Norm, ...]:
    """A LayerNorm as a step of a class space; none for an identity."""
    if isinstance(module, nn.Identity):
        return ()
    if isinstance(module, nn.LayerNorm):
        return (Norm.of(module),)
    refuse(f"normalises with {type(module).__name__}; only LayerNorm is read")


def attention(module: nn.Module, scale: Tensor | None, refuse: Refuse) -> tuple[dict[str, Point], Output]:
    """The points ``values`` and ``attention`` of an ``nn.MultiheadAttention``, and its output projection.

    The module runs fused and may take its fast path, both of which show neither; so they are computed once more from
    its input, when they are asked for. ``scale`` is the LayerScale that follows.
    """
    if type(module) is not nn.MultiheadAttention:
        refuse(f"has attention of type {type(module).__name__}, which is not torch's MultiheadAttention")
    if module.bias_k is not None or module.add_zero_attn or module.in_proj_weight is None:
        refuse("has attention with keys or values of its own, which is not plain self-attention")
    points = {
        "values": Point(module, "input", read=partial(_values, module)),
        "attention": Point(module, "input", read=partial(_weights, module)),
    }
    return points, Output(module.out_proj.weight.detach(), detached(module.out_proj.bias), scale=scale)


def _values(module: nn.MultiheadAttention, x: Tensor) -> Tensor:
    values: Tensor = _projected(module, x, 2, 3)[0]
    return values.contiguous()


def _weights(module: nn.MultiheadAttention, x: Tensor) -> Tensor:
    queries, keys = _projected(module, x, 0, 2)
    weights: Tensor = ((queries * module.head_dim**-0.5) @ keys.transpose(-2, -1)).softmax(dim=-1)
    return weights


def _projected(module: nn.MultiheadAttention, x: Tensor, start: int, stop: int) -> Tensor:
    """Some of queries (0), keys (1) and values (2) of the module's input: ``[part, image, head, token, channel]``."""
    rows = slice(start * module.embed_dim, stop * module.embed_dim)
    bias = detached(module.in_proj_bias)
    x = x if module.batch_first else x.transpose(0, 1)
    parts: Tensor = F.linear(x, module.in_proj_weight.detach()[rows], None if bias is None else bias[rows])
    parts = parts.unflatten(-1, (stop - start, module.num_heads, module.head_dim))
    return parts.permute(2, 0, 3, 1, 4)
