"""timm's VisionTransformer family, as a table of names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

import timm
import torch
from timm.data import ImageNetInfo, create_transform, infer_imagenet_subset, resolve_model_data_config
from timm.layers import LayerScale, RmsNorm
from timm.layers.attention import Attention
from timm.layers.norm import LayerNormFp32
from timm.models import is_model
from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from classlens.core.attention import Output
from classlens.core.maps import Norm
from classlens.core.space import ClassSpace
from classlens.errors import ClasslensError, near
from classlens.models.checkpoint import State, apply_state, read_state
from classlens.models.families import Created, Request
from classlens.models.timm_names import known
from classlens.models.view import BlockView, ModelView, Point, Readout

__all__ = ["claims", "create", "known", "known_as", "view"]

SUPPORTED = "classlens reads timm VisionTransformer models with a [CLS] head or average pooling"

# Which blocks are understood: where the norm of each sublayer stands.
_BLOCKS: dict[type[nn.Module], str] = {Block: "pre", ResPostBlock: "post"}
_POOLS = {"token": "cls", "avg": "avg"}
_REFUSED_POOLS = {
    "": "no pooling, so it has no class logits",
    "map": "attention pooling",
    "max": "max pooling, which is not linear in the tokens",
    "avgmax": "average and max pooling, which is not linear in the tokens",
    "prr": "patch-recurrent pooling",
}


def claims(name: str) -> bool:
    """timm's registry, or a prefix that is timm's to resolve (``hf-hub:owner/name``, ``local-dir:folder``)."""
    return name.startswith(("hf-hub:", "hf_hub:", "local-dir:")) or is_model(name.partition(".")[0])


def create(name: str, request: Request, clean: Callable[[State], State] | None = None) -> Created:
    """A model by its timm name, with pretrained weights from timm's usual source or from a checkpoint file.

    ``clean`` takes out of a checkpoint's state dict what is known to be no part of the model.
    """
    if request.checkpoint is None:
        return known_as(_build(name, request, request.num_classes))
    state = read_state(request.checkpoint)
    if clean is not None:
        state = clean(state)
    head = state.get("head.weight")
    rows = len(head) if request.num_classes is None and head is not None and head.ndim == 2 else request.num_classes
    module = _build(name, replace(request, pretrained=False), rows)
    apply_state(module, state, request.checkpoint, _timm_names)
    return known_as(module)


def known_as(module: nn.Module) -> Created:
    """timm's eval transform at the model's own input size; ImageNet's names where the head still has its rows."""
    own: Any = module
    config = getattr(own, "pretrained_cfg", None)
    if not config:
        return Created(module)
    names: list[str] | None = None
    subset = infer_imagenet_subset({"num_classes": own.num_classes})
    if subset is not None and config.get("num_classes") == own.num_classes:
        info = ImageNetInfo(subset)
        names = [info.index_to_description(index) for index in range(own.num_classes)]
    data = resolve_model_data_config(own)
    size = getattr(getattr(own, "patch_embed", None), "img_size", None) or data["input_size"][1:]
    data["input_size"] = (data["input_size"][0], *size)
    return Created(module, names, create_transform(**data, is_training=False))


def _check_tag(name: str) -> None:
    architecture, _, tag = name.partition(".")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
    if ":" not in name and tag and tag not in tags:
        raise ClasslensError(
            f"model {name!r} has no pretrained weights tagged {tag!r}{near(tag, tags)}; the tags of {architecture!r} "
            f"are {', '.join(tags) or 'none'}"
        )


def _build(name: str, request: Request, num_classes: int | None) -> nn.Module:
    _check_tag(name)
    options = dict(request.options) if num_classes is None else {**request.options, "num_classes": num_classes}
    try:
        module: nn.Module = timm.create_model(name, pretrained=request.pretrained, **options)
    except TypeError as error:
        raise ClasslensError(
            f"model {name!r} does not take these options ({error}): see timm's documentation"
        ) from None
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0].rstrip(".")[:200]
        if not request.pretrained:
            raise ClasslensError(f"model {name!r} cannot be built ({reason}): check its name and options") from None
        raise ClasslensError(
            f"pretrained weights of model {name!r} are not on this machine and could not be fetched ({reason}): "
            f"{_way_out(name)}, or connect to the network once"
        ) from None
    return module


def _way_out(name: str) -> str:
    source, _, rest = name.partition(":")
    if rest:  # without the config of its folder, a file of weights does not tell the architecture
        where = "" if source == "local-dir" else f" of https://huggingface.co/{rest.partition('@')[0]}"
        return f"fetch config.json and model.safetensors{where} and give their folder as model 'local-dir:FOLDER'"
    config = timm.get_pretrained_cfg(name)
    what = "its weights file"
    if config is not None and config.hf_hub_id:
        what = f"{config.hf_hub_filename or 'model.safetensors'} of https://huggingface.co/{config.hf_hub_id}"
    elif config is not None and config.url:
        what = str(config.url)
    return f"fetch {what} and give it as checkpoint=FILE (--checkpoint FILE)"


def _timm_names(state: State, module: nn.Module) -> State:
    """Other projects' names and sizes turned into timm's, where the family has a conversion."""
    if not isinstance(module, VisionTransformer):
        return state
    converted: State = checkpoint_filter_fn(state, module)
    return converted


def view(module: nn.Module, name: str) -> ModelView:
    """Describe a timm ``VisionTransformer``; raises ClasslensError for what is not supported, with the reason."""
    if not isinstance(module, VisionTransformer):
        raise ClasslensError(
            f"model {name!r} is a {type(module).__name__}, not a plain Vision Transformer of timm; {SUPPORTED}"
        )
    refuse = partial(_refuse, name)
    if hasattr(module, "head_dist"):
        refuse("has two heads (distilled)")
    pool: str = module.global_pool
    if pool not in _POOLS:
        refuse(f"pools with {pool!r}: {_REFUSED_POOLS.get(pool, 'not a plain pooling')}")
    head: Any = module.head
    if isinstance(head, nn.Identity):
        refuse("has no classifier head; load it with num_classes=N and a fine-tuned checkpoint=FILE")
    if not isinstance(head, nn.Linear):
        refuse(f"has a head of type {type(head).__name__}, which is not one linear layer")
    prefix = _prefix(module)
    space = ClassSpace(
        before=_norms(module.norm, refuse),
        after=_norms(module.fc_norm, refuse),
        weight=head.weight.detach(),
        bias=_detached(head.bias),
    )
    patches = module.patch_embed
    dynamic = bool(module.dynamic_img_size)
    fixed = tuple(patches.grid_size)
    return ModelView(
        module=module,
        name=name,
        blocks=tuple(_block(block, refuse) for block in module.blocks),
        readouts=(Readout(space, _pooled(module, len(prefix))),),
        prefix=prefix,
        pooling="cls" if module.global_pool == "token" else "avg",
        input_size=tuple(patches.img_size),
        grid=partial(_grid, name, patches) if dynamic else (lambda size: fixed),
        any_size=dynamic,
        unfused=partial(_unfused, [block.attn for block in module.blocks]),
        channels=int(getattr(module, "in_chans", 3)),
    )


def _refuse(name: str, reason: str) -> NoReturn:
    raise ClasslensError(f"model {name!r} {reason}; {SUPPORTED}")


def _prefix(module: VisionTransformer) -> tuple[str, ...]:
    registers = tuple(f"reg{i}" for i in range(getattr(module, "num_reg_tokens", 0)))
    return ("cls", *registers) if module.cls_token is not None else registers


def _block(block: Any, refuse: Callable[[str], NoReturn]) -> BlockView:
    placement = _BLOCKS.get(type(block))
    if placement is None:
        refuse(f"has blocks of type {type(block).__name__}, whose sublayers are not read yet")
    attn: Any = block.attn
    if type(attn) is not Attention:
        refuse(f"has attention of type {type(attn).__name__}, which is not plain softmax attention")
    if not isinstance(getattr(attn, "norm", None), nn.Identity | None) or getattr(attn, "gate", None) is not None:
        refuse("normalises or gates its attention output before the projection, which is not read yet")
    project: Any = getattr(block.mlp, "fc2", None)
    if not isinstance(project, nn.Linear):
        refuse(f"has an MLP of type {type(block.mlp).__name__}, whose output projection is not read yet")
    points = {
        "resid_pre": Point(block, "input"),
        # The drop-path modules (identities when evaluating) pass exactly what is added to the residual stream.
        "attn_out": Point(block.drop_path1),
        "mlp_out": Point(block.drop_path2),
        "resid_post": Point(block),
        "values": Point(attn.qkv, read=partial(_values, heads=attn.num_heads)),
        "attention": Point(attn.attn_drop),
    }
    if placement == "post":
        points |= {"attn_raw": Point(block.attn), "mlp_raw": Point(block.mlp)}
    return BlockView(
        points=points,
        heads=attn.num_heads,
        attn=_output(attn.proj, block, 1, placement == "post", refuse),
        mlp=_output(project, block, 2, placement == "post", refuse),
    )


def _output(project: nn.Linear, block: Any, number: int, post: bool, refuse: Callable[[str], NoReturn]) -> Output:
    weight, bias = project.weight.detach(), _detached(project.bias)
    if post:
        (norm,) = _norms(getattr(block, f"norm{number}"), refuse) or (None,)
        return Output(weight, bias, norm=norm)
    scale = getattr(block, f"ls{number}")
    if not isinstance(scale, LayerScale | nn.Identity):
        refuse(f"scales its sublayers with {type(scale).__name__}, which is not read yet")
    return Output(weight, bias, scale=scale.gamma.detach() if isinstance(scale, LayerScale) else None)


def _norms(module: nn.Module, refuse: Callable[[str], NoReturn]) -> tuple[Norm, ...]:
    if isinstance(module, nn.Identity):
        return ()
    if isinstance(module, nn.LayerNorm | LayerNormFp32):
        return (Norm("layer", _detached(module.weight), _detached(module.bias), module.eps),)
    if isinstance(module, RmsNorm | nn.RMSNorm):
        eps = module.eps if module.eps is not None else torch.finfo(module.weight.dtype).eps
        return (Norm("rms", _detached(module.weight), None, eps),)
    refuse(f"normalises with {type(module).__name__}; only LayerNorm and RMSNorm are read")


def _detached(parameter: Tensor | None) -> Tensor | None:
    return None if parameter is None else parameter.detach()


def _values(qkv: Tensor, *, heads: int) -> Tensor:
    """The values of a joint query-key-value projection; copied, to let the queries and keys go."""
    images, tokens, _ = qkv.shape
    return qkv.reshape(images, tokens, 3, heads, -1)[:, :, 2].transpose(1, 2).contiguous()


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


def _pooled(module: VisionTransformer, prefix: int) -> slice:
    if module.global_pool == "token":
        return slice(0, 1)
    return slice(0 if getattr(module, "pool_include_prefix", False) else prefix, None)


@contextmanager
def _unfused(modules: list[Any]) -> Iterator[None]:
    flags = [module.fused_attn for module in modules]
    try:
        for module in modules:
            module.fused_attn = False
        yield
    finally:
        for module, flag in zip(modules, flags, strict=True):
            module.fused_attn = flag
