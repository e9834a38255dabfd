"""How the classifiers of Hugging Face transformers are laid out: a table of names, and the view made with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from classlens.core.attention import Output
from classlens.core.maps import Norm, compute_dtype, detached
from classlens.core.space import ClassSpace
from classlens.errors import ClasslensError
from classlens.models.torch_layers import Refuse, norms
from classlens.models.view import BlockView, ModelView, Point, Readout


@dataclass(frozen=True)
class _Layer:
    """Where a layer keeps what is read. Of several paths the first that exists counts: releases differ in names."""

    value: tuple[str, ...]
    attn: tuple[str, ...]
    mlp: tuple[str, ...] = ("mlp.fc2",)
    scales: tuple[str, str] | None = None


@dataclass(frozen=True)
class _Parts:
    """What a readout is made of."""

    heads: list[nn.Linear]
    norm: tuple[Norm, ...]
    after: tuple[Norm, ...]
    """The norm of the pooler, of the mean of the tokens."""
    prefix: int


@dataclass(frozen=True)
class _Model:
    """One model class, by the names of its parts."""

    base: str
    layer: _Layer
    readouts: Callable[[_Parts], tuple[str, tuple[Readout, ...]]]
    layers: str = "layers"
    norm: str = "layernorm"
    heads: tuple[str, ...] = ("classifier",)
    prefix: tuple[str, ...] = ("cls",)
    any_size: bool = False
    """Whether the model interpolates its positions unasked."""


def _space(head: nn.Linear, before: tuple[Norm, ...] = (), after: tuple[Norm, ...] = ()) -> ClassSpace:
    return ClassSpace(before=before, after=after, weight=head.weight.detach(), bias=detached(head.bias))


def _cls(parts: _Parts) -> tuple[str, tuple[Readout, ...]]:
    return "cls", (Readout(_space(parts.heads[0], parts.norm), slice(0, 1)),)


def _average(parts: _Parts) -> tuple[str, tuple[Readout, ...]]:
    return "avg", (Readout(_space(parts.heads[0], parts.norm), slice(parts.prefix, None)),)


def _distilled(parts: _Parts) -> tuple[str, tuple[Readout, ...]]:
    own, teacher = (_space(head, parts.norm) for head in parts.heads)
    dist = slice(1, 2)
    return "cls+dist", (Readout(own, slice(0, 1), weight=0.5), Readout(teacher, dist, tokens=dist, weight=0.5))


def _beit(parts: _Parts) -> tuple[str, tuple[Readout, ...]]:
    """The pooler averages and then normalizes (the norm before it is an identity), or takes ``[CLS]`` as it is."""
    if not parts.after:
        return _cls(parts)
    return "avg", (Readout(_space(parts.heads[0], parts.norm, parts.after), slice(parts.prefix, None)),)


def _halves(parts: _Parts) -> tuple[str, tuple[Readout, ...]]:
    """The head reads ``[cls ; mean(patch)]``: its first columns are of ``[CLS]``, the others of the image tokens."""
    (head,) = parts.heads
    first, second = (
        ClassSpace(before=parts.norm, after=(), weight=half, bias=detached(head.bias))
        for half in head.weight.detach().chunk(2, dim=1)
    )
    patches = slice(parts.prefix, None)
    return "cls+avg", (Readout(first, slice(0, 1)), Readout(second, patches, tokens=patches, counts_bias=False))


_VIT = _Layer(value=("attention.v_proj",), attn=("attention.o_proj",))
_BEIT = _Layer(_VIT.value, _VIT.attn, scales=("lambda_1", "lambda_2"))
_SIGLIP = _Layer(value=("self_attn.v_proj",), attn=("self_attn.out_proj",))
_DINO = _Layer(
    value=("attention.v_proj", "attention.attention.value"),
    attn=("attention.o_proj", "attention.output.dense"),
    mlp=("mlp.fc2", "mlp.down_proj", "mlp.weights_out"),
    scales=("layer_scale1.lambda1", "layer_scale2.lambda1"),
)
_TEACHER = ("cls_classifier", "distillation_classifier")

MODELS: dict[str, _Model] = {
    "ViTForImageClassification": _Model("vit", _VIT, _cls),
    "ViTMSNForImageClassification": _Model("vit", _VIT, _cls),
    "DeiTForImageClassification": _Model("deit", _VIT, _cls, prefix=("cls", "dist")),
    "DeiTForImageClassificationWithTeacher": _Model("deit", _VIT, _distilled, heads=_TEACHER, prefix=("cls", "dist")),
    "BeitForImageClassification": _Model("beit", _BEIT, _beit, any_size=True),
    "Dinov2ForImageClassification": _Model("dinov2", _DINO, _halves, layers="encoder.layer", any_size=True),
    "Dinov2WithRegistersForImageClassification": _Model(
        "dinov2_with_registers", _DINO, _halves, layers="encoder.layer", any_size=True
    ),
    "SiglipForImageClassification": _Model(
        "vision_model", _SIGLIP, _average, layers="encoder.layers", norm="post_layernorm", prefix=()
    ),
}
SUPPORTED = f"classlens reads {', '.join(MODELS)} of transformers"

# Names of plain softmax attention, which may be computed in steps while its weights are wanted.
_PLAIN = ("None", "eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4")
_runs = count()


def view(module: nn.Module, name: str) -> ModelView:
    """Describe a classifier of transformers; raises ClasslensError for what is not supported, with the reason."""
    refuse: Refuse = partial(refused, name)
    spec = spec_of(module)
    if spec is None:
        refuse(f"is a {type(module).__name__}")
    base: Any = _known(module, (spec.base,), refuse)
    config = base.config
    heads = [_linear(module, (head,), refuse) for head in spec.heads]
    registers = tuple(f"reg{number}" for number in range(getattr(config, "num_register_tokens", 0)))
    prefix = (*spec.prefix, *registers)
    norm = norms(_known(base, (spec.norm,), refuse), refuse)
    pooler = part_of(base, ("pooler.layernorm",))
    pooling, readouts = spec.readouts(_Parts(heads, norm, () if pooler is None else norms(pooler, refuse), len(prefix)))
    layers = _known(base, (spec.layers,), refuse)
    taps: dict[Any, nn.Module] = {}
    return ModelView(
        module=module,
        name=name,
        blocks=tuple(_block(layer, spec.layer, config.num_attention_heads, taps, refuse) for layer in layers),
        readouts=readouts,
        prefix=prefix,
        pooling=pooling,
        input_size=_pair(config.image_size),
        grid=partial(_grid, name, _pair(config.patch_size)),
        any_size=spec.any_size,
        channels=config.num_channels,
        logits_of=_logits,
        unfused=partial(_in_steps, taps),
        family="transformers",
    )


def spec_of(module: nn.Module) -> _Model | None:
    """The table's row for a module of one of its classes, or of a class made from one."""
    bases = (base for base in type(module).__mro__ if base.__module__.startswith("transformers."))
    return next((MODELS[base.__name__] for base in bases if base.__name__ in MODELS), None)


def refused(name: str, reason: str) -> NoReturn:
    raise ClasslensError(f"model {name!r} {reason}; {SUPPORTED}")


def part_of(root: nn.Module, paths: tuple[str, ...]) -> Any:
    """What stands at the first of some dotted paths that exists, None where none does."""
    for path in paths:
        found: Any = root
        for name in path.split("."):
            found = getattr(found, name, None)
        if found is not None:
            return found
    return None


def _known(root: nn.Module, paths: tuple[str, ...], refuse: Refuse) -> Any:
    found = part_of(root, paths)
    if found is None:
        refuse(f"has no {paths[0]} in its {type(root).__name__}, as it is of another release than 5.10.1 and later")
    return found


def _linear(root: nn.Module, paths: tuple[str, ...], refuse: Refuse) -> nn.Linear:
    found = _known(root, paths, refuse)
    if isinstance(found, nn.Identity):
        refuse("has no classification head: load one with classes (num_labels)")
    if type(found) is not nn.Linear:
        refuse(f"has a {paths[0]} of type {type(found).__name__}, which is not one plain linear layer")
    return found


def _block(layer: nn.Module, spec: _Layer, heads: int, taps: dict[Any, nn.Module], refuse: Refuse) -> BlockView:
    value, attn, mlp = (_linear(layer, paths, refuse) for paths in (spec.value, spec.attn, spec.mlp))
    core: Any = next(module for module in layer.modules() if value in module.children())
    for part in (layer, core):
        if not type(part).__module__.startswith("transformers.models."):
            refuse(f"has a {type(part).__name__}, which is not of transformers itself")
    implementation = str(core.config._attn_implementation)
    if implementation not in _PLAIN:
        refuse(f"computes attention with {implementation!r}, which may be no plain softmax attention: use 'sdpa'")
    taps[core] = tap = nn.Identity()
    attn_added, attn_output = _added(layer, attn, spec.scales and spec.scales[0], refuse)
    mlp_added, mlp_output = _added(layer, mlp, spec.scales and spec.scales[1], refuse)
    points = {
        "resid_pre": Point(layer, "input"),
        "attn_out": attn_added,
        "mlp_out": mlp_added,
        "resid_post": Point(layer),
        "values": Point(value, read=partial(_by_head, heads=heads)),
        "attention": Point(tap),
        "attn_coefficients": Point(attn, "input"),
        "mlp_coefficients": Point(mlp, "input"),
    }
    return BlockView(points=points, heads=heads, attn=attn_output, mlp=mlp_output)


def _added(layer: nn.Module, project: nn.Linear, scale: str | None, refuse: Refuse) -> tuple[Point, Output]:
    """Where what a sublayer adds passes: after its last projection, times the scale that the layer puts on it.

    Dropout does nothing when a model is evaluated, and the scale of some layers is no module of its own.
    """
    weight, bias = project.weight.detach(), detached(project.bias)
    factor = None if scale is None else _known(layer, (scale,), refuse)
    if not isinstance(factor, Tensor):  # a layer without LayerScale has the number 1
        return Point(project), Output(weight, bias)
    return Point(project, read=partial(_scaled, factor), write=partial(_unscaled, factor)), Output(
        weight, bias, scale=factor.detach()
    )


def _scaled(factor: Tensor, raw: Tensor) -> Tensor:
    added: Tensor = factor.detach() * raw
    return added


def _unscaled(factor: Tensor, raw: Tensor, new: Tensor) -> Tensor:
    """What becomes ``new`` when it is scaled; where the factor is 0 nothing does, and nothing is changed."""
    factor = factor.detach()
    return torch.where(factor == 0, raw, new / factor)


def _by_head(values: Tensor, *, heads: int) -> Tensor:
    parted: Tensor = values.unflatten(-1, (heads, -1))
    return parted.transpose(1, 2)


def _logits(output: Any) -> Tensor:
    """The logits by name, or first of a tuple where the config sets ``return_dict`` to False."""
    logits: Tensor = output[0] if isinstance(output, tuple) else output.logits
    return logits


def _grid(name: str, patch: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    if size[0] < patch[0] or size[1] < patch[1]:
        raise ClasslensError(
            f"pixels are {size[0]}×{size[1]}, less than one patch of model {name!r}, {patch[0]}×{patch[1]}: resize them"
        )
    return size[0] // patch[0], size[1] // patch[1]


def _pair(size: Any) -> tuple[int, int]:
    height, width = size if isinstance(size, tuple | list) else (size, size)
    return int(height), int(width)


@contextmanager
def _in_steps(taps: Mapping[Any, nn.Module]) -> Iterator[None]:
    """Attention by ``_attend``, through transformers' own registry, for the duration.

    transformers' eager attention is not used for it: it rounds the weights of a float64 model to float32.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    registry: Any = ALL_ATTENTION_FUNCTIONS
    configs = list({id(core.config): core.config for core in taps}.values())
    before = [config._attn_implementation for config in configs]
    name = f"classlens {next(_runs)}"
    registry[name] = partial(_attend, taps)
    try:
        for config in configs:
            config._attn_implementation = name
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
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
    """Softmax attention whose weights ``[image, head, query, token]`` pass a module of classlens."""
    scores = query @ key.transpose(-2, -1) * scaling
    if attention_mask is not None:  # BEiT's position bias
        scores = scores + attention_mask
    weights = taps[module](scores.softmax(dim=-1, dtype=compute_dtype(query.dtype)).to(query.dtype))
    return (weights @ value).transpose(1, 2).contiguous(), weights
