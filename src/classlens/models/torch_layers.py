"""Layers of torch that several libraries use in Vision Transformers: norms and multi-head attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

from torch import Tensor, nn
from torch.nn import functional as F

from classlens.core.attention import Output
from classlens.core.attention_rows import Scores, projected_products
from classlens.core.steps import Norm, detached
from classlens.errors import ClasslensError
from classlens.models.view import Point

Refuse = Callable[[str], NoReturn]
"""Raises ClasslensError for the model, given the reason."""


def norm_maps(
    module: nn.Module, refuse: Refuse, supported: tuple[type[nn.Module], ...] = (nn.LayerNorm,)
) -> tuple[Norm, ...]:
    """A norm as the steps of a class space; none for an identity."""
    if isinstance(module, nn.Identity):
        return ()
    if isinstance(module, supported):
        return (Norm.of(module),)  # type: ignore[arg-type]  # one of torch's norms
    names = " and ".join(dict.fromkeys(kind.__name__ for kind in supported))
    refuse(f"normalizes with {type(module).__name__}, where classlens supports {names}")


def taken_part(module: nn.Module) -> nn.Module:
    """The module that a ``ModulesToSaveWrapper`` of peft calls; any other module as it is."""
    wrapper: Any = module
    if not isinstance(getattr(wrapper, "modules_to_save", None), nn.ModuleDict):
        return module
    active = [] if wrapper.disable_adapters else wrapper.active_adapters
    part: nn.Module = wrapper.modules_to_save[active[0]] if active else wrapper.original_module
    return part


def only_linear(module: nn.Module) -> nn.Module:
    """The linear layer of a head of dropout and one linear layer; any other head as it is.

    Dropout does nothing in evaluation mode.
    """
    module = taken_part(module)
    if not isinstance(module, nn.Sequential):
        return module
    layers = [part for part in module.modules() if not isinstance(part, nn.Sequential | nn.Dropout | nn.Identity)]
    return layers[0] if len(layers) == 1 and isinstance(layers[0], nn.Linear) else module


def as_it_is(passing: Any) -> Tensor | None:
    """Reads a point that may be passed by None, and where nothing can be put in."""
    tensor: Tensor | None = passing
    return tensor


Taps = dict[nn.MultiheadAttention, nn.Module]
"""For each attention, a module of classlens that its weights pass while attention is computed stepwise."""


def multihead_attention(
    module: nn.Module, scale: Tensor | None, taps: Taps, refuse: Refuse
) -> tuple[dict[str, Point], Output, Scores]:
    """An ``nn.MultiheadAttention``: points, output projection with a LayerScale ``scale``, and scores of attention.

    The module stays fused and may take torch's fast path: weights and coefficients pass only within
    ``stepwise_attention``. Values and scores are computed from the module's input. A tap is added to ``taps``.
    """
    if type(module) is not nn.MultiheadAttention:
        refuse(f"has attention of type {type(module).__name__}, which is not torch's MultiheadAttention")
    if module.bias_k is not None or module.add_zero_attn or module.in_proj_weight is None:
        refuse("has attention with additional keys or values, which is not plain self-attention")
    taps[module] = tap = nn.Identity()
    points = {
        "values": Point(module, "input", read=partial(_values, module)),
        "attention": Point(tap),
        "attn_in": Point(module, "input", read=partial(_image_first, module)),
        "attn_coefficients": Point(module.out_proj, "input"),
    }
    output = Output(module.out_proj.weight.detach(), detached(module.out_proj.bias), scale=scale)
    return points, output, partial(_scores, module)


@contextmanager
def stepwise_attention(taps: Taps) -> Iterator[None]:
    """Within it, attention is computed step by step: weights pass a watched tap, coefficients pass ``out_proj``."""
    forwards = {module: module.__dict__.get("forward") for module in taps}
    for module, tap in taps.items():
        module.__dict__["forward"] = partial(_attend, module, tap)
    try:
        yield
    finally:
        for module, forward in forwards.items():
            if forward is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = forward


def _attend(
    module: nn.MultiheadAttention,
    tap: nn.Module,
    query: Tensor,
    *_: Any,
    attn_mask: Tensor | None = None,
    key_padding_mask: Tensor | None = None,
    **__: Any,
) -> tuple[Tensor, None]:
    """Self-attention; its weights are computed only where a hook watches the tap."""
    if attn_mask is not None or key_padding_mask is not None:
        raise ClasslensError("attention with a mask cannot be computed step by step: run the model without one")
    queries, keys, values = _projected(module, query, 0, 3)
    if tap._forward_hooks or tap._forward_pre_hooks:
        weights: Tensor = tap(((queries * module.head_dim**-0.5) @ keys.transpose(-2, -1)).softmax(dim=-1))
        mixed = weights @ values
    else:
        mixed = F.scaled_dot_product_attention(queries, keys, values)
    joined = mixed.transpose(1, 2).flatten(2)
    added: Tensor = module.out_proj(joined)
    return added if module.batch_first else added.transpose(0, 1), None


def _values(module: nn.MultiheadAttention, x: Tensor) -> Tensor:
    return _projected(module, x, 2, 3)[0]


def _image_first(module: nn.MultiheadAttention, x: Tensor) -> Tensor:
    return x if module.batch_first else x.transpose(0, 1)


def _scores(module: nn.MultiheadAttention, passed: Mapping[str, Tensor], queries: Tensor) -> Tensor:
    """Scores of some queries from the module's input."""
    weight, bias = module.in_proj_weight.detach(), detached(module.in_proj_bias)
    query, key, _ = weight.chunk(3)
    constant = None if bias is None else bias[: module.embed_dim]
    return projected_products(passed["attn_in"], queries, heads=module.num_heads, query=(query, constant), key=key)


def _projected(module: nn.MultiheadAttention, x: Tensor, start: int, stop: int) -> Tensor:
    """Queries (0), keys (1) and values (2) from ``start`` to ``stop``: ``[part, image, head, token, channel]``."""
    rows = slice(start * module.embed_dim, stop * module.embed_dim)
    bias = detached(module.in_proj_bias)
    parts: Tensor = F.linear(
        _image_first(module, x), module.in_proj_weight.detach()[rows], None if bias is None else bias[rows]
    )
    parts = parts.unflatten(-1, (stop - start, module.num_heads, module.head_dim))
    return parts.permute(2, 0, 3, 1, 4)
