"""Classifiers of Hugging Face transformers: a table from model class to its parts, and their description."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from classlens.core.attention import Output
from classlens.core.space import ClassSpace
from classlens.core.steps import Norm, compute_dtype, detached
from classlens.errors import ClasslensError
from classlens.models.torch_layers import Refuse, as_it_is, norm_maps, only_linear
from classlens.models.view import BlockView, ModelView, Point, Readout


@dataclass(frozen=True)
class LayerSpec:
    """Paths of a layer's modules. The first path that exists counts, as releases differ in names."""

    query: tuple[str, ...]
    key: tuple[str, ...]
    value: tuple[str, ...]
    attn: tuple[str, ...]
    mlp: tuple[str, ...] = ("mlp.fc2",)
    scales: tuple[str, str] | None = None


@dataclass(frozen=True)
class HeadParts:
    """Heads and norms of a model."""

    heads: list[nn.Linear]
    norm: tuple[Norm, ...]
    after: tuple[Norm, ...]
    """The pooler's norm, applied to the mean of the tokens."""
    prefix: int


@dataclass(frozen=True)
class ModelSpec:
    """The parts of one model class, by attribute paths."""

    base: str
    layer: LayerSpec
    readouts: Callable[[HeadParts], tuple[str, tuple[Readout, ...]]]
    """From heads and norms to the name of the pooling and the readouts."""
    layers: str = "layers"
    norm: str = "layernorm"
    heads: tuple[str, ...] = ("classifier",)
    prefix: tuple[str, ...] = ("cls",)
    any_size: bool = False
    """Whether the model interpolates its position embeddings by default."""


def _space(head: nn.Linear, before: tuple[Norm, ...] = (), after: tuple[Norm, ...] = ()) -> ClassSpace:
    return ClassSpace(before=before, after=after, weight=head.weight.detach(), bias=detached(head.bias))


def _pool_cls(parts: HeadParts) -> tuple[str, tuple[Readout, ...]]:
    return "cls", (Readout(_space(parts.heads[0], parts.norm), slice(0, 1)),)


def _pool_average(parts: HeadParts) -> tuple[str, tuple[Readout, ...]]:
    return "avg", (Readout(_space(parts.heads[0], parts.norm), slice(parts.prefix, None)),)


def _pool_distilled(parts: HeadParts) -> tuple[str, tuple[Readout, ...]]:
    cls, teacher = (_space(head, parts.norm) for head in parts.heads)
    dist = slice(1, 2)
    return "cls+dist", (Readout(cls, slice(0, 1), weight=0.5), Readout(teacher, dist, tokens=dist, weight=0.5))


def _pool_beit(parts: HeadParts) -> tuple[str, tuple[Readout, ...]]:
    """The pooler normalizes the average (the norm before it is an identity), or takes ``[CLS]`` without a norm."""
    if not parts.after:
        return _pool_cls(parts)
    return "avg", (Readout(_space(parts.heads[0], parts.norm, parts.after), slice(parts.prefix, None)),)


def _pool_halves(parts: HeadParts) -> tuple[str, tuple[Readout, ...]]:
    """The head takes ``[cls ; mean(patch)]``: one half of its columns for ``[CLS]``, one for the image tokens."""
    (head,) = parts.heads
    first, second = (
        ClassSpace(before=parts.norm, after=(), weight=half, bias=detached(head.bias))
        for half in head.weight.detach().chunk(2, dim=1)
    )
    patches = slice(parts.prefix, None)
    return "cls+avg", (Readout(first, slice(0, 1)), Readout(second, patches, tokens=patches, counts_bias=False))


_VIT = LayerSpec(("attention.q_proj",), ("attention.k_proj",), ("attention.v_proj",), ("attention.o_proj",))
_BEIT = replace(_VIT, scales=("lambda_1", "lambda_2"))
_SIGLIP = LayerSpec(("self_attn.q_proj",), ("self_attn.k_proj",), ("self_attn.v_proj",), ("self_attn.out_proj",))
_DINO = LayerSpec(
    query=("attention.q_proj", "attention.attention.query"),
    key=("attention.k_proj", "attention.attention.key"),
    value=("attention.v_proj", "attention.attention.value"),
    attn=("attention.o_proj", "attention.output.dense"),
    mlp=("mlp.fc2", "mlp.down_proj", "mlp.weights_out"),
    scales=("layer_scale1.lambda1", "layer_scale2.lambda1"),
)
_TEACHER = ("cls_classifier", "distillation_classifier")

SPECS: dict[str, ModelSpec] = {
    "ViTForImageClassification": ModelSpec("vit", _VIT, _pool_cls),
    "ViTMSNForImageClassification": ModelSpec("vit", _VIT, _pool_cls),
    "DeiTForImageClassification": ModelSpec("deit", _VIT, _pool_cls, prefix=("cls", "dist")),
    "DeiTForImageClassificationWithTeacher": ModelSpec(
        "deit", _VIT, _pool_distilled, heads=_TEACHER, prefix=("cls", "dist")
    ),
    "BeitForImageClassification": ModelSpec("beit", _BEIT, _pool_beit, any_size=True),
    "Dinov2ForImageClassification": ModelSpec("dinov2", _DINO, _pool_halves, layers="encoder.layer", any_size=True),
    "Dinov2WithRegistersForImageClassification": ModelSpec(
        "dinov2_with_registers", _DINO, _pool_halves, layers="encoder.layer", any_size=True
    ),
    "SiglipForImageClassification": ModelSpec(
        "vision_model", _SIGLIP, _pool_average, layers="encoder.layers", norm="post_layernorm", prefix=()
    ),
}
SUPPORTED = f"classlens supports {', '.join(SPECS)} of transformers"

# Implementations of plain softmax attention, which can be computed step by step.
_PLAIN = ("None", "eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4")
_implementation_numbers = count()


def describe(module: nn.Module, name: str) -> ModelView:
    """Describe a classifier of transformers; raises ClasslensError with the reason for an unsupported one."""
    refuse: Refuse = partial(refuse_model, name)
    spec = find_spec(module)
    if spec is None:
        refuse(f"is a {type(module).__name__}")
    base: Any = _require_part(module, (spec.base,), refuse)
    config = base.config
    registers = tuple(f"reg{number}" for number in range(getattr(config, "num_register_tokens", 0)))
    prefix = (*spec.prefix, *registers)
    pooler = find_part(base, ("pooler.layernorm",))
    parts = HeadParts(
        heads=[_require_linear(module, (head,), refuse) for head in spec.heads],
        norm=norm_maps(_require_part(base, (spec.norm,), refuse), refuse),
        after=() if pooler is None else norm_maps(pooler, refuse),
        prefix=len(prefix),
    )
    pooling, readouts = spec.readouts(parts)
    layers = _require_part(base, (spec.layers,), refuse)
    taps: dict[Any, nn.Module] = {}
    return ModelView(
        module=module,
        name=name,
        blocks=tuple(_describe_block(layer, spec.layer, config.num_attention_heads, taps, refuse) for layer in layers),
        readouts=readouts,
        prefix=prefix,
        pooling=pooling,
        input_size=_pair(config.image_size),
        grid=partial(_grid, name, _pair(config.patch_size)),
        any_size=spec.any_size,
        channels=config.num_channels,
        logits_of=_logits,
        unfused=partial(_stepwise_attention, taps),
        library="transformers",
    )


def find_spec(module: nn.Module) -> ModelSpec | None:
    """The specification of a module's class, or of its base class in transformers."""
    bases = (base for base in type(module).__mro__ if base.__module__.startswith("transformers."))
    return next((SPECS[base.__name__] for base in bases if base.__name__ in SPECS), None)


def refuse_model(name: str, reason: str) -> NoReturn:
    raise ClasslensError(f"model {name!r} {reason}; {SUPPORTED}")


def find_part(root: nn.Module, paths: tuple[str, ...]) -> Any:
    """The attribute at the first dotted path that exists, or None."""
    for path in paths:
        part: Any = root
        for name in path.split("."):
            part = getattr(part, name, None)
        if part is not None:
            return part
    return None


def _require_part(root: nn.Module, paths: tuple[str, ...], refuse: Refuse) -> Any:
    part = find_part(root, paths)
    if part is None:
        refuse(f"has no {paths[0]} in its {type(root).__name__}, as it is of another release than 5.10.1 and later")
    return part


def _require_linear(root: nn.Module, paths: tuple[str, ...], refuse: Refuse) -> nn.Linear:
    part = _require_part(root, paths, refuse)
    if isinstance(part, nn.Identity):
        refuse("has no classification head: load one with classes (num_labels)")
    part = only_linear(part)
    if type(part) is not nn.Linear:
        refuse(f"has a {paths[0]} of type {type(part).__name__}, which is not one plain linear layer")
    return part


def _describe_block(
    layer: nn.Module, spec: LayerSpec, heads: int, taps: dict[Any, nn.Module], refuse: Refuse
) -> BlockView:
    query, key, value = (_require_part(layer, path, refuse) for path in (spec.query, spec.key, spec.value))
    attn, mlp = (_require_linear(layer, path, refuse) for path in (spec.attn, spec.mlp))
    core: Any = next(module for module in layer.modules() if value in module.children())
    for part in (layer, core):
        if not type(part).__module__.startswith("transformers.models."):
            refuse(f"has a {type(part).__name__}, which is not a class of transformers")
    implementation = str(core.config._attn_implementation)
    if implementation not in _PLAIN:
        refuse(f"computes attention with {implementation!r}, which may not be plain softmax attention: use 'sdpa'")
    taps[core] = tap = nn.Identity()
    attn_out, attn_output = _sublayer_output(layer, attn, spec.scales and spec.scales[0], refuse)
    mlp_out, mlp_output = _sublayer_output(layer, mlp, spec.scales and spec.scales[1], refuse)
    points = {
        "resid_pre": Point(layer, "input"),
        "attn_out": attn_out,
        "mlp_out": mlp_out,
        "resid_post": Point(layer),
        "values": Point(value, read=partial(_split_heads, heads=heads)),
        "attention": Point(tap),
        "queries": Point(query, read=partial(_split_heads, heads=heads)),
        "keys": Point(key, read=partial(_split_heads, heads=heads)),
        # BEiT's relative position bias.
        "attn_bias": Point(core, "input", read=as_it_is, argument="attention_mask"),
        "attn_coefficients": Point(attn, "input"),
        "mlp_coefficients": Point(mlp, "input"),
    }
    return BlockView(points=points, heads=heads, attn=attn_output, mlp=mlp_output)


def _sublayer_output(layer: nn.Module, project: nn.Linear, scale: str | None, refuse: Refuse) -> tuple[Point, Output]:
    """A sublayer's last projection with the layer's scale, which is a parameter, not a module, in some layers."""
    weight, bias = project.weight.detach(), detached(project.bias)
    factor = None if scale is None else _require_part(layer, (scale,), refuse)
    if not isinstance(factor, Tensor):  # a layer without LayerScale has the number 1
        return Point(project), Output(weight, bias)
    return Point(project, read=partial(_scaled, factor), write=partial(_unscaled, factor)), Output(
        weight, bias, scale=factor.detach()
    )


def _scaled(factor: Tensor, raw: Tensor) -> Tensor:
    added: Tensor = factor.detach() * raw
    return added


def _unscaled(factor: Tensor, raw: Tensor, new: Tensor) -> Tensor:
    """The tensor that is ``new`` after scaling; unchanged where the factor is 0."""
    factor = factor.detach()
    return torch.where(factor == 0, raw, new / factor)


def _split_heads(joined: Tensor, *, heads: int) -> Tensor:
    split: Tensor = joined.unflatten(-1, (heads, -1))
    return split.transpose(1, 2)


def _logits(output: Any) -> Tensor:
    """The logits of a named output, or of a tuple where the config sets ``return_dict`` to False."""
    logits: Tensor = output[0] if isinstance(output, tuple) else output.logits
    return logits


def _grid(name: str, patch: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    if size[0] < patch[0] or size[1] < patch[1]:
        raise ClasslensError(
            f"pixels are {size[0]}×{size[1]}, less than one {patch[0]}×{patch[1]} patch of model {name!r}: resize them"
        )
    return size[0] // patch[0], size[1] // patch[1]


def _pair(size: Any) -> tuple[int, int]:
    height, width = size if isinstance(size, tuple | list) else (size, size)
    return int(height), int(width)


@contextmanager
def _stepwise_attention(taps: Mapping[Any, nn.Module]) -> Iterator[None]:
    """Compute attention with ``_attend``, through transformers' registry of attention functions.

    transformers' eager attention would round the weights of a float64 model to float32.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    registry: Any = ALL_ATTENTION_FUNCTIONS
    configs = list({id(core.config): core.config for core in taps}.values())
    implementations = [config._attn_implementation for config in configs]
    name = f"classlens {next(_implementation_numbers)}"
    registry[name] = partial(_attend, taps)
    try:
        for config in configs:
            config._attn_implementation = name
        yield
    finally:
        for config, implementation in zip(configs, implementations, strict=True):
            config._attn_implementation = implementation
        del registry[name]


def _attend(
    taps: Mapping[Any, nn.Module],
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Softmax attention whose weights ``[image, head, query, token]`` pass a tap."""
    scores = query @ key.transpose(-2, -1) * scaling
    if attention_mask is not None:  # BEiT's relative position bias
        scores = scores + attention_mask
    weights = taps[module](scores.softmax(dim=-1, dtype=compute_dtype(query.dtype)).to(query.dtype))
    return (weights @ value).transpose(1, 2).contiguous(), weights
