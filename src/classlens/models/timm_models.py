"""timm's Vision Transformers: a table from model class to tokens, pooling and heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from timm.layers import AttentionPoolLatent
from timm.models import beit, deit, eva, vision_transformer
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import Tensor, nn
from torch.func import functional_call

from classlens.core.space import ClassSpace
from classlens.core.steps import Pool, detached
from classlens.errors import ClasslensError
from classlens.models.timm_blocks import describe_block, timm_norm_maps
from classlens.models.torch_layers import Refuse, only_linear
from classlens.models.view import ModelView, Readout

SUPPORTED = "classlens supports timm models with a [CLS] head, average pooling or attention pooling"

_POOLS = {"token": "cls", "avg": "avg", "map": "map"}
_REFUSED_POOLS = {
    "": "no pooling, so it has no class logits",
    "max": "max pooling, which is not linear in the tokens",
    "avgmax": "average and max pooling, which is not linear in the tokens",
    "prr": "patch-recurrent pooling",
}


def find_spec(module: nn.Module) -> ModelSpec | None:
    """The specification of a module's class or base class; None for another model than a Vision Transformer."""
    return next((SPECS[base] for base in type(module).__mro__ if base in SPECS), None)


def describe_model(module: nn.Module, spec: ModelSpec, name: str, refuse: Refuse) -> ModelView:
    """Describe a model of one of the classes in ``SPECS``."""
    model: Any = module
    pool = _pool(model, refuse)
    prefix = spec.prefix(model)
    patches = model.patch_embed
    dynamic = bool(getattr(model, "dynamic_img_size", False))
    fixed = tuple(patches.grid_size)
    return ModelView(
        module=module,
        name=name,
        blocks=tuple(describe_block(block, refuse) for block in model.blocks),
        readouts=spec.readouts(model, pool, len(prefix), refuse),
        prefix=prefix,
        pooling=spec.pooling or pool,
        input_size=tuple(patches.img_size),
        grid=partial(_grid, name, patches) if dynamic else (lambda size: fixed),
        any_size=dynamic,
        unfused=partial(_unfused, model.blocks),
        channels=_channels(model),
        size_option="img_size",
        library="timm",
        has_mid=not any(hasattr(block, "in_proj") for block in model.blocks),
    )


def _pool(module: Any, refuse: Refuse) -> str:
    """``cls``, ``avg`` or ``map``; a pool module is used whatever ``global_pool`` says."""
    pool: str = module.global_pool or ""
    if getattr(module, "attn_pool", None) is not None and pool != "prr":
        pool = "map"
    if pool not in _POOLS:
        refuse(f"pools with {pool!r}: {_REFUSED_POOLS.get(pool, 'not a plain pooling')}")
    return _POOLS[pool]


def _one_head(module: Any, pool: str, prefix: int, refuse: Refuse) -> tuple[Readout, ...]:
    return (Readout(class_space(module, module.head, pool, refuse), pooled_tokens(module, pool, prefix)),)


def _two_heads(module: Any, pool: str, prefix: int, refuse: Refuse) -> tuple[Readout, ...]:
    """The mean of a head on ``[CLS]`` and one on the distillation token."""
    spaces = (class_space(module, head, pool, refuse) for head in (module.head, module.head_dist))
    cls, distilled = (replace(space, after=()) for space in spaces)  # its forward_head leaves fc_norm out
    return Readout(cls, slice(0, 1), weight=0.5), Readout(distilled, slice(1, 2), slice(1, 2), weight=0.5)


def class_space(module: Any, head: nn.Module, pool: str, refuse: Refuse) -> ClassSpace:
    """The class space of a linear head after the model's norms and pool."""
    if isinstance(head, nn.Identity):
        refuse("has no classifier head; load it with num_classes=N and a fine-tuned checkpoint=FILE, or with head=")
    head = only_linear(head)
    if not isinstance(head, nn.Linear):
        refuse(f"has a head of type {type(head).__name__}, which is not one linear layer")
    return ClassSpace(
        before=timm_norm_maps(module.norm, refuse),
        after=timm_norm_maps(module.fc_norm, refuse),
        weight=head.weight.detach(),
        bias=detached(head.bias),
        pool=_attention_pool(module.attn_pool, refuse) if pool == "map" else None,
    )


def _attention_pool(module: Any, refuse: Refuse) -> Pool:
    kind: type[nn.Module] = type(module)
    if kind is not AttentionPoolLatent:
        refuse(f"pools with {type(module).__name__}, which is not timm's attention pooling")
    if module.pos_embed is not None:
        refuse("pools by attention with its own position embeddings, which a single token does not have")
    return Pool(partial(_pool_tokens, module))


def _pool_tokens(module: nn.Module, x: Tensor) -> Tensor:
    """The pool in the precision of ``x``, also for a model in half precision."""
    parameters = {name: value.detach().to(x.dtype) for name, value in module.named_parameters()}
    pooled: Tensor = functional_call(module, parameters, (x,))
    return pooled


def pooled_tokens(module: Any, pool: str, prefix: int) -> slice:
    """The tokens that the model pools."""
    if pool == "cls":
        return slice(0, 1)
    # EVA's attention pool includes the prefix; for other models a flag decides.
    with_prefix = (pool == "map" and isinstance(module, eva.Eva)) or getattr(module, "pool_include_prefix", False)
    return slice(0 if with_prefix else prefix, None)


def _cls_and_registers(module: Any) -> tuple[str, ...]:
    cls = ("cls",) if getattr(module, "cls_token", None) is not None else ()
    return *cls, *(f"reg{number}" for number in range(module.num_prefix_tokens - len(cls)))


@dataclass(frozen=True)
class ModelSpec:
    """Common properties of the models of one class."""

    prefix: Callable[[Any], tuple[str, ...]] = _cls_and_registers
    readouts: Callable[[Any, str, int, Refuse], tuple[Readout, ...]] = _one_head
    pooling: str | None = None
    """Pooling of the head, where ``global_pool`` does not tell it."""
    convert: Callable[[Any, Any], Any] | None = None
    """Converts names and sizes in other projects' checkpoints to timm's."""


SPECS: dict[type[nn.Module], ModelSpec] = {
    vision_transformer.VisionTransformer: ModelSpec(convert=vision_transformer.checkpoint_filter_fn),
    deit.VisionTransformerDistilled: ModelSpec(
        lambda module: ("cls", "dist"), _two_heads, "cls+dist", convert=vision_transformer.checkpoint_filter_fn
    ),
    VisionTransformerRelPos: ModelSpec(),
    beit.Beit: ModelSpec(convert=beit.checkpoint_filter_fn),
    eva.Eva: ModelSpec(convert=eva.checkpoint_filter_fn),
}


def _channels(module: Any) -> int:
    channels = getattr(module, "in_chans", None)
    convolution = next((part for part in module.patch_embed.modules() if isinstance(part, nn.Conv2d)), None)
    return int(channels or (convolution.in_channels if convolution is not None else 3))


def _grid(name: str, patches: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a model for several sizes."""
    height, width = patches.patch_size
    if not patches.dynamic_img_pad and (size[0] % height or size[1] % width):
        raise ClasslensError(
            f"pixels are {size[0]}×{size[1]}, but model {name!r} takes multiples of its {height}×{width} patches: "
            "resize them"
        )
    rows, columns = patches.dynamic_feat_size(size)
    return rows, columns


@contextmanager
def _unfused(blocks: nn.Module) -> Iterator[None]:
    modules: list[Any] = [module for module in blocks.modules() if hasattr(module, "fused_attn")]
    flags = [module.fused_attn for module in modules]
    try:
        for module in modules:
            module.fused_attn = False
        yield
    finally:
        for module, flag in zip(modules, flags, strict=True):
            module.fused_attn = flag
