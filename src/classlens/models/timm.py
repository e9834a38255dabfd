"""timm's Vision Transformers, by name, from a checkpoint file or as a module."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import timm
import torch
from timm.data import ImageNetInfo, create_transform, infer_imagenet_subset, resolve_model_data_config
from timm.models import is_model
from torch import nn

from classlens.errors import ClasslensError, cause, suggestion
from classlens.models.adapter import Adapter, LibraryModel, ModelRequest
from classlens.models.checkpoint import State, apply_state
from classlens.models.classes import ordered_names
from classlens.models.hub import asked_once
from classlens.models.timm_linear_head import LinearHead, describe_head
from classlens.models.timm_models import SUPPORTED, describe_model, find_spec
from classlens.models.timm_names import MODULES, list_models
from classlens.models.timm_sizes import file_grid, options_of
from classlens.models.view import ModelView
from classlens.models.weight_search import plain_heads, read_weights, resampling

# Words in the names of architectures, by the plain Vision Transformer of the nearest size.
_SIZES = {
    "tiny": {"tiny", "t", "nano", "pico", "femto", "atto", "xs", "xxs"},
    "small": {"small", "s", "mini"},
    "large": {"large", "l", "xlarge", "huge", "h", "giant", "g"},
}


def resolves(name: str) -> bool:
    """A name in timm's registry, ``hf-hub:owner/name``, or ``local-dir:folder``."""
    return name.startswith(("hf-hub:", "hf_hub:", "local-dir:")) or is_model(name.partition(".")[0])


def create(name: str, request: ModelRequest, clean: Callable[[State], State] | None = None) -> LibraryModel:
    """A model by its timm name, with pretrained weights from timm's usual source or from a checkpoint file.

    ``clean`` removes from a checkpoint's state dict parts that do not belong to the model.
    """
    if request.checkpoint is None:
        module = _build(name, request, request.rows)
        _require_trained_head(module, name, request)
        notes = () if request.lora is None else request.lora.merge(module, name)
        model = replace(from_module(module), notes=(*_resampled(request, module), *notes))
    else:
        model = _from_checkpoint(name, request, request.checkpoint, clean)
    if request.checkpoint is not None or request.lora is not None or _is_foreign(name):
        model = replace(model, class_names=_recorded_names(model.module))  # not ImageNet's by their number alone
    # The reference keeps timm's transform for the MIIL models.
    return replace(model, paper_transform=model.transform) if "_miil" in name else model


def _require_trained_head(module: Any, name: str, request: ModelRequest) -> None:
    """Raises ClasslensError where timm drew a new head, since its weights have another number of classes."""
    rows = (getattr(module, "pretrained_cfg", None) or {}).get("num_classes")
    if not request.pretrained or not request.rows or rows in (None, request.rows):
        return
    replaced = set() if request.lora is None else set(request.lora.whole)
    heads = [key for key in module.state_dict() if key.partition(".")[0] in ("head", "head_dist")]
    drawn = next((key for key in heads if key not in replaced), None)
    if drawn is not None:
        raise ClasslensError(
            f"num_classes is {request.rows}, but the weights of model {name!r} have {rows} classes, and nothing gives "
            f"{drawn!r}: leave it out, or give a checkpoint or an adapter with the whole head"
        )


def _from_checkpoint(
    name: str, request: ModelRequest, path: str | Path, clean: Callable[[State], State] | None
) -> LibraryModel:
    """A model with the weights of a file; its shapes decide the options that the user leaves out."""
    request = replace(request, pretrained=False)
    blank = _blank(name, request)
    expected = blank.state_dict()
    weights = read_weights(path, expected, partial(_try_convert, blank), own_head=request.num_classes != 0)
    state = plain_heads(weights.state if clean is None else clean(weights.state), expected)
    options = {**options_of(state, blank, request.options, path), **request.options}
    classes = options.pop("num_classes", None)
    classes = classes if request.num_classes is None else request.num_classes
    module: Any = _build(name, replace(request, options=options), classes)
    apply_state(module, state, path, _convert)
    notes = list(weights.notes)
    grid, own = file_grid(state, module), tuple(module.patch_embed.grid_size)
    if isinstance(grid, tuple) and grid != own:
        notes.append(resampling(grid, own))
    return replace(from_module(module), options=options, notes=tuple(notes))


def _blank(name: str, request: ModelRequest) -> nn.Module:
    """The architecture without weights, which takes a tenth of the time."""
    try:
        with torch.device("meta"):
            return _build(name, request, request.num_classes)
    except ClasslensError:  # of options that do not fit, or of a model that computes while it is made
        return _build(name, request, request.num_classes)


def _resampled(request: ModelRequest, module: Any) -> tuple[str, ...]:
    """The note where timm changes the position embeddings of its own weights to another input size."""
    size = (getattr(module, "pretrained_cfg", None) or {}).get("input_size")
    has_positions = any("pos_embed" in key or "relative_position" in key for key in module.state_dict())
    if not request.pretrained or size is None or "img_size" not in request.options or not has_positions:
        return ()
    embed = module.patch_embed
    trained = tuple(size[axis + 1] * embed.grid_size[axis] // embed.img_size[axis] for axis in (0, 1))
    return () if trained == tuple(embed.grid_size) else (resampling(trained, tuple(embed.grid_size)),)


def _is_foreign(name: str) -> bool:
    """Whether the weights may be of another data set than those of timm."""
    return name.startswith(("hf-hub:", "hf_hub:", "local-dir:")) and ":timm/" not in name


def _recorded_names(module: Any) -> Sequence[str] | None:
    """The class names in the model's own record, where they fit its head."""
    config = getattr(module, "pretrained_cfg", None) or {}
    labels, descriptions = config.get("label_names"), config.get("label_descriptions") or {}
    if not labels or len(labels) != module.num_classes:
        return None
    return [descriptions.get(label, label) for label in ordered_names(labels)]


def imagenet_names(classes: int) -> list[str] | None:
    """The names of ImageNet's classes, or of its subset of so many; None for another number."""
    subset = infer_imagenet_subset({"num_classes": classes})
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    return [info.index_to_description(index) for index in range(classes)]


def from_module(module: nn.Module) -> LibraryModel:
    """timm's eval transform at the model's input size, and class names.

    Names are those of the model's own record, or ImageNet's for an unchanged number of classes.
    """
    if isinstance(module, LinearHead):
        return replace(from_module(module.backbone), module=module, class_names=None)
    model: Any = module
    config = getattr(model, "pretrained_cfg", None)
    if not config:
        return LibraryModel(module)
    names = _recorded_names(module)
    if names is None and config.get("num_classes") == model.num_classes:
        names = imagenet_names(model.num_classes)
    data = resolve_model_data_config(model)
    size = getattr(getattr(model, "patch_embed", None), "img_size", None) or data["input_size"][1:]
    data["input_size"] = (data["input_size"][0], *size)
    return LibraryModel(module, names, create_transform(**data, is_training=False))


def describe(module: nn.Module, name: str) -> ModelView:
    """Describe one of timm's Vision Transformers; raises ClasslensError with the reason for an unsupported one."""
    refuse = partial(_refuse, name)
    if isinstance(module, LinearHead):
        return describe_head(module, name, refuse)
    spec = find_spec(module)
    if spec is None:
        raise _not_plain(name, type(module).__name__)
    return describe_model(module, spec, name, refuse)


def _refuse(name: str, reason: str) -> NoReturn:
    raise ClasslensError(f"model {name!r} {reason}; {SUPPORTED}")


def _check_tag(name: str) -> None:
    architecture, _, tag = name.partition(".")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
    if ":" not in name and tag and tag not in tags:
        raise ClasslensError(
            f"model {name!r} has no pretrained weights tagged {tag!r}{suggestion(tag, tags)}; "
            f"the tags of {architecture!r} are {', '.join(tags) or 'none'}"
        )


def _build(name: str, request: ModelRequest, num_classes: int | None) -> nn.Module:
    _check_plain(name)
    _check_tag(name)
    options = dict(request.options) if num_classes is None else {**request.options, "num_classes": num_classes}
    with asked_once() if request.pretrained else nullcontext(cause) as why:
        try:
            module: nn.Module = timm.create_model(name, pretrained=request.pretrained, **options)
        except TypeError as error:
            raise ClasslensError(
                f"model {name!r} does not take these options ({error}): see timm's documentation"
            ) from None
        except Exception as error:
            if not request.pretrained:
                raise ClasslensError(
                    f"model {name!r} cannot be built ({cause(error)}): check its name and options"
                ) from None
            raise ClasslensError(
                f"pretrained weights of model {name!r} are not on this machine and could not be fetched "
                f"({why(error)}): {_way_out(name)}, or connect to the network once"
            ) from None
    return module


def _way_out(name: str) -> str:
    source, _, repository = name.partition(":")
    if repository:  # the architecture is in the config of the folder, not in the file of weights
        where = "" if source == "local-dir" else f" of https://huggingface.co/{repository.partition('@')[0]}"
        return f"fetch config.json and model.safetensors{where} and give their folder as model 'local-dir:FOLDER'"
    config = timm.get_pretrained_cfg(name)
    file = "its weights file"
    if config is not None and config.hf_hub_id:
        file = f"{config.hf_hub_filename or 'model.safetensors'} of https://huggingface.co/{config.hf_hub_id}"
    elif config is not None and config.url:
        file = str(config.url)
    return f"fetch {file} and give it as checkpoint=FILE (--checkpoint FILE)"


def _convert(state: State, module: nn.Module) -> State:
    """Convert other projects' names and sizes to timm's, where the model class has a conversion."""
    spec = find_spec(module)
    if spec is None or spec.convert is None:
        return state
    converted: State = spec.convert(dict(state), module)
    positions = state.get("pos_embed")
    if positions is not None and positions.shape == getattr(getattr(module, "pos_embed", None), "shape", None):
        converted["pos_embed"] = positions  # timm may take as many tokens for another grid
    return converted


def _try_convert(blank: nn.Module, state: State) -> State:
    """The names after a conversion; none where it fails."""
    with suppress(RuntimeError, ValueError, KeyError, IndexError, AttributeError):
        return _convert(state, blank)
    return {}


def _check_plain(name: str) -> None:
    """Refuse an unsupported architecture before its weights are fetched."""
    architecture = name.partition(".")[0]
    if ":" in name:
        return
    file = timm.models.model_entrypoint(architecture).__module__
    if file.removeprefix("timm.models.") not in MODULES:
        raise _not_plain(name, f"model of {file}")


def _not_plain(name: str, kind: str) -> ClasslensError:
    words = set(re.split(r"[_.\W]+", name.lower()))
    size = next((size for size, size_words in _SIZES.items() if words & size_words), "base")
    return ClasslensError(
        f"model {name!r} is a {kind}, not a plain Vision Transformer: classlens supports models with one sequence of "
        "tokens from the first block to the last, without merging or pooling in between; the nearest supported one is "
        f"'vit_{size}_patch16_224.augreg_in21k_ft_in1k'"
    )


ADAPTER = Adapter(
    label="timm",
    about="Vision Transformers of timm, also with a linear head of your own",
    names=("vit_base_patch16_224.augreg_in21k_ft_in1k", "hf-hub:owner/name", "local-dir:folder"),
    weights="timm's usual source, or `checkpoint=`",
    packages=("timm", "classlens.models.timm_linear_head"),
    resolves=resolves,
    create=create,
    describe=describe,
    from_module=from_module,
    list_models=list_models,
    takes_num_classes=True,
    takes_lora=True,
)
