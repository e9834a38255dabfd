"""timm's Vision Transformers, by name, from a checkpoint file or as a module."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

import timm
from timm.data import ImageNetInfo, create_transform, infer_imagenet_subset, resolve_model_data_config
from timm.models import is_model
from torch import nn

from classlens.errors import ClasslensError, suggestion
from classlens.models.checkpoint import State, apply_state, read_state
from classlens.models.families import Created, Request
from classlens.models.timm_layout import SUPPORTED, layout_of, view_of
from classlens.models.timm_names import MODULES, known
from classlens.models.view import ModelView

__all__ = ["claims", "create", "known", "known_as", "view"]

# Words in the names of architectures, by the plain Vision Transformer nearest in size.
_SIZES = {
    "tiny": {"tiny", "t", "nano", "pico", "femto", "atto", "xs", "xxs"},
    "small": {"small", "s", "mini"},
    "large": {"large", "l", "xlarge", "huge", "h", "giant", "g"},
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
            f"model {name!r} has no pretrained weights tagged {tag!r}{suggestion(tag, tags)}; "
            f"the tags of {architecture!r} are {', '.join(tags) or 'none'}"
        )


def _build(name: str, request: Request, num_classes: int | None) -> nn.Module:
    _check_plain(name)
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
    layout = layout_of(module)
    if layout is None or layout.convert is None:
        return state
    converted: State = layout.convert(state, module)
    return converted


def view(module: nn.Module, name: str) -> ModelView:
    """Describe one of timm's Vision Transformers; raises ClasslensError for what is not supported, with the reason."""
    layout = layout_of(module)
    if layout is None:
        raise _not_plain(name, type(module).__name__)
    return view_of(module, layout, name, partial(refuse, name))


def refuse(name: str, reason: str) -> NoReturn:
    """Raise for a model that is not read, with the reason."""
    raise ClasslensError(f"model {name!r} {reason}; {SUPPORTED}")


def _check_plain(name: str) -> None:
    """Refuse an architecture that is not read before its weights are fetched."""
    architecture = name.partition(".")[0]
    if ":" in name:
        return
    file = timm.models.model_entrypoint(architecture).__module__
    if file.removeprefix("timm.models.") not in MODULES:
        raise _not_plain(name, f"model of {file}")


def _not_plain(name: str, kind: str) -> ClasslensError:
    words = set(re.split(r"[_.\W]+", name.lower()))
    size = next((size for size, known in _SIZES.items() if words & known), "base")
    return ClasslensError(
        f"model {name!r} is a {kind}, not a plain Vision Transformer: classlens reads models that keep one sequence of "
        "tokens from the first block to the last, none merged or pooled on the way; the nearest that it reads is "
        f"'vit_{size}_patch16_224.augreg_in21k_ft_in1k'"
    )
