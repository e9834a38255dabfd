"""timm's Vision Transformers, as a table from their classes: tokens, pooling and heads of each."""

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

from classlens.core.maps import Pool, detached
from classlens.core.space import ClassSpace
from classlens.errors import ClasslensError
from classlens.models.timm_blocks import block_view, norms
from classlens.models.torch_layers import Refuse
from classlens.models.view import ModelView, Readout

SUPPORTED = "classlens reads timm models with a [CLS] head, average pooling or attention pooling"

_POOLS = {"token": "cls", "avg": "avg", "map": "map"}
_REFUSED_POOLS = {
    "": "no pooling, so it has no class logits",
    "max": "max pooling, which is not linear in the tokens",
    "avgmax": "average and max pooling, which is not linear in the tokens",
    "prr": "patch-recurrent pooling",
}


def layout_of(module: nn.Module) -> Layout | None:
    """How models of this class, or of the class it is derived from, are laid out; None for no Vision Transformer."""
    return next((LAYOUTS[base] for base in type(module).__mro__ if base in LAYOUTS), None)


def view_of(module: nn.Module, layout: Layout, name: str, refuse: Refuse) -> ModelView:
    """Describe a model of one of the classes below."""
    own: Any = module
    pool = _pool(own, refuse)
    prefix = layout.prefix(own)
    blocks = tuple(block_view(block, refuse) for block in own.blocks)
    patches = own.patch_embed
    dynamic = bool(getattr(own, "dynamic_img_size", False))
    fixed = tuple(patches.grid_size)
    return ModelView(
        module=module,
        name=name,
        blocks=blocks,
        readouts=layout.readouts(own, pool, len(prefix), refuse),
        prefix=prefix,
        pooling=layout.pooling or pool,
        input_size=tuple(patches.img_size),
        grid=partial(_grid, name, patches) if dynamic else (lambda size: fixed),
        any_size=dynamic,
        unfused=partial(_unfused, own.blocks),
        channels=_channels(own),
        size_option="img_size",
        family="timm",
        has_mid=not any(hasattr(block, "in_proj") for block in own.blocks),
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
    return (Readout(space_of(module, module.head, pool, refuse), pooled_of(module, pool, prefix)),)


def _two_heads(module: Any, pool: str, prefix: int, refuse: Refuse) -> tuple[Readout, ...]:
    """The mean of a head on ``[CLS]`` and one on the distillation token."""
    spaces = (space_of(module, head, pool, refuse) for head in (module.head, module.head_dist))
    own, distilled = (replace(space, after=()) for space in spaces)  # its forward_head leaves fc_norm out
    return Readout(own, slice(0, 1), weight=0.5), Readout(distilled, slice(1, 2), slice(1, 2), weight=0.5)


def space_of(module: Any, head: nn.Module, pool: str, refuse: Refuse) -> ClassSpace:
    """The class space of a linear head behind the model's norms and pool."""
    if isinstance(head, nn.Identity):
        refuse("has no classifier head; load it with num_classes=N and a fine-tuned checkpoint=FILE, or with head=")
    if not isinstance(head, nn.Linear):
        refuse(f"has a head of type {type(head).__name__}, which is not one linear layer")
    return ClassSpace(
        before=norms(module.norm, refuse),
        after=norms(module.fc_norm, refuse),
        weight=head.weight.detach(),
        bias=detached(head.bias),
        pool=_attention_pool(module.attn_pool, refuse) if pool == "map" else None,
    )


def _attention_pool(module: Any, refuse: Refuse) -> Pool:
    kind: type[nn.Module] = type(module)
    if kind is not AttentionPoolLatent:
        refuse(f"pools with {type(module).__name__}, which is not timm's attention pooling")
    if module.pos_embed is not None:
        refuse("pools by attention with position embeddings of its own, which one token does not have")
    return Pool(partial(_pool_tokens, module))


def _pool_tokens(module: nn.Module, x: Tensor) -> Tensor:
    """The pool in the precision of projection, also where the model runs in half precision."""
    parameters = {name: value.detach().to(x.dtype) for name, value in module.named_parameters()}
    pooled: Tensor = functional_call(module, parameters, (x,))
    return pooled


def pooled_of(module: Any, pool: str, prefix: int) -> slice:
    """The tokens that the model pools."""
    if pool == "cls":
        return slice(0, 1)
    # EVA's attention pool takes the prefix as well; elsewhere a flag says.
    everything = pool == "map" and isinstance(module, eva.Eva)
    return slice(0 if everything or getattr(module, "pool_include_prefix", False) else prefix, None)


def _registers(module: Any) -> tuple[str, ...]:
    """``cls``, where there is one, before registers."""
    cls = ("cls",) if getattr(module, "cls_token", None) is not None else ()
    return *cls, *(f"reg{number}" for number in range(module.num_prefix_tokens - len(cls)))


@dataclass(frozen=True)
class Layout:
    """What models of one class have in common."""

    prefix: Callable[[Any], tuple[str, ...]] = _registers
    readouts: Callable[[Any, str, int, Refuse], tuple[Readout, ...]] = _one_head
    pooling: str | None = None
    """What the head does, where ``global_pool`` does not say it."""
    convert: Callable[[Any, Any], Any] | None = None
    """Turns names and sizes of other projects' checkpoints into timm's."""


LAYOUTS: dict[type[nn.Module], Layout] = {
    vision_transformer.VisionTransformer: Layout(convert=vision_transformer.checkpoint_filter_fn),
    deit.VisionTransformerDistilled: Layout(
        lambda module: ("cls", "dist"), _two_heads, "cls+dist", convert=vision_transformer.checkpoint_filter_fn
    ),
    VisionTransformerRelPos: Layout(),
    beit.Beit: Layout(convert=beit.checkpoint_filter_fn),
    eva.Eva: Layout(convert=eva.checkpoint_filter_fn),
}


def _channels(module: Any) -> int:
    given = getattr(module, "in_chans", None)
    first = next((part for part in module.patch_embed.modules() if isinstance(part, nn.Conv2d)), None)
    return int(given or (first.in_channels if first is not None else 3))


def _grid(name: str, patches: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a model that takes several sizes."""
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
