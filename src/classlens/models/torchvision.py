"""torchvision's Vision Transformers, by name, from a checkpoint file or as a module."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from functools import partial
from typing import Any, NoReturn

import torch
from torch import nn
from torchvision.models import VisionTransformer, WeightsEnum, get_model, get_model_weights
from torchvision.models.vision_transformer import EncoderBlock, MLPBlock, interpolate_embeddings
from torchvision.transforms import Compose

from classlens.core.attention import Output
from classlens.core.space import ClassSpace
from classlens.core.steps import detached
from classlens.errors import ClasslensError, cause, suggestion
from classlens.models.adapter import Adapter, LibraryModel, ModelEntry, ModelRequest
from classlens.models.checkpoint import State, apply_state
from classlens.models.torch_layers import Refuse, Taps, multihead_attention, norm_maps, stepwise_attention
from classlens.models.view import BlockView, ModelView, Point, Readout
from classlens.models.weight_cache import in_torch_hub
from classlens.models.weight_search import plain_heads, read_weights, resampling

NAMES = ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14")
SUPPORTED = "classlens supports torchvision VisionTransformer models whose head is one linear layer"


def resolves(name: str) -> bool:
    """``torchvision:vit_b_16`` or ``vit_b_16``, either with or without ``.IMAGENET1K_V1``."""
    return name.startswith("torchvision:") or name.partition(".")[0] in NAMES


def create(name: str, request: ModelRequest) -> LibraryModel:
    """A model by its torchvision name, with torchvision's weights (by default the best ones) or those of a file."""
    architecture, _, tag = name.removeprefix("torchvision:").partition(".")
    if architecture not in NAMES:
        raise ClasslensError(
            f"model {name!r} is not a Vision Transformer of torchvision{suggestion(architecture, NAMES)}; give one of "
            f"{', '.join(NAMES)}"
        )
    weights = _weights(name, architecture, tag)
    options = _named_options(name, request)
    told: dict[str, int] = {}
    notes: tuple[str, ...] = ()
    if request.checkpoint is not None:
        with torch.device("meta"):
            expected = _build(name, architecture, {**options, "num_classes": 1}).state_dict()
        found = read_weights(request.checkpoint, expected)
        state = plain_heads(found.state, expected)
        told = _checkpoint_options(state)
        module = _build(name, architecture, {**told, **options})
        state, note = _resampled(state, module)
        notes = found.notes + note
        apply_state(module, state, request.checkpoint, _convert)
    elif request.pretrained:
        whole = {} if request.lora is None else request.lora.whole
        head = {"heads.head.weight", "heads.head.bias"}
        pretrained = _pretrained_options(name, weights, {} if head <= whole.keys() else options)
        module = _build(name, architecture, {**pretrained, **options})
        state, notes = _resampled(_fetch(name, weights), module)
        module.load_state_dict({key: value for key, value in state.items() if key not in whole}, strict=not whole)
    else:
        module = _build(name, architecture, options)
    if request.lora is not None:
        notes += request.lora.merge(module, name)
    categories = weights.meta["categories"]
    # Nothing in a file says what its classes are.
    foreign = request.checkpoint is not None or request.lora is not None
    names = None if foreign or module.num_classes != len(categories) else categories
    return LibraryModel(module, names, _transform(module, architecture, weights), options=told, notes=notes)


def list_models() -> Iterator[ModelEntry]:
    """Each architecture with each of its weights."""
    for architecture in NAMES:
        for weights in get_model_weights(architecture):
            name, rows = f"torchvision:{architecture}.{weights.name}", len(weights.meta["categories"])
            yield ModelEntry(name, "torchvision", "ViT", rows, "here" if in_torch_hub(weights.url) else "not here")


def _weights(name: str, architecture: str, tag: str) -> WeightsEnum:
    choices = get_model_weights(architecture)
    if (tag or "DEFAULT") not in choices.__members__:
        raise ClasslensError(
            f"weights {tag!r} of model {name!r} are not known to torchvision{suggestion(tag, choices.__members__)}; "
            f"give one of {', '.join(weights.name for weights in choices)}"
        )
    return choices[tag or "DEFAULT"]


def _pretrained_options(name: str, weights: WeightsEnum, options: Mapping[str, Any]) -> dict[str, Any]:
    """Number of classes and input size of torchvision's weights; the user's options must not change the first."""
    classes = len(weights.meta["categories"])
    if options.get("num_classes", classes) != classes:
        raise ClasslensError(
            f"num_classes is {options['num_classes']}, but the weights {weights.name} of model {name!r} are for "
            f"{classes}: leave it out, or give other weights as checkpoint=FILE"
        )
    return {"num_classes": classes, "image_size": weights.meta["min_size"][0]}


def _named_options(name: str, request: ModelRequest) -> dict[str, Any]:
    """The user's options under torchvision's names."""
    options = dict(request.options)
    if request.rows is not None:
        options["num_classes"] = request.rows
    if (size := options.pop("img_size", None)) is not None:
        height, width = (size, size) if isinstance(size, int) else size
        if height != width:
            raise ClasslensError(f"img_size of model {name!r} is {height}×{width}: torchvision's models take squares")
        options["image_size"] = height
    return options


def _resampled(state: State, module: VisionTransformer) -> tuple[State, tuple[str, ...]]:
    """Weights for the input size of a model, and what is said where that is not the one of training."""
    positions, side = state.get("encoder.pos_embedding"), module.image_size // module.patch_size
    if positions is None or positions.ndim != 3:
        return state, ()
    before = math.isqrt(positions.shape[1] - 1)
    if before == side or before**2 + 1 != positions.shape[1]:
        return state, ()
    resized = interpolate_embeddings(module.image_size, module.patch_size, dict(state))
    return dict(resized), (resampling((before, before), (side, side)),)


def _build(name: str, architecture: str, options: Mapping[str, Any]) -> VisionTransformer:
    try:
        module: VisionTransformer = get_model(architecture, weights=None, **options)
    except TypeError as error:
        raise ClasslensError(
            f"model {name!r} does not take these options ({cause(error)}): see torchvision's documentation"
        ) from None
    except Exception as error:  # torchvision raises several kinds of exceptions for wrong options
        raise ClasslensError(f"model {name!r} cannot be built ({cause(error)}): check its options") from None
    return module.eval()


def _fetch(name: str, weights: WeightsEnum) -> State:
    try:
        with redirect_stdout(sys.stderr):  # torch.hub prints to stdout, which the command line needs for JSON
            state: State = weights.get_state_dict(progress=True, check_hash=True)
    except Exception as error:  # a download may raise anything: no network, no such host, a broken file
        raise ClasslensError(
            f"pretrained weights of model {name!r} are not on this machine and could not be fetched "
            f"({cause(error)}): fetch {weights.url} and give it as checkpoint=FILE "
            "(--checkpoint FILE), or connect to the network once"
        ) from None
    return state


def _checkpoint_options(state: State) -> dict[str, int]:
    """Number of classes and input size, from the shapes in a checkpoint."""
    options = {}
    head, positions, patches = (
        state.get(key) for key in ("heads.head.weight", "encoder.pos_embedding", "conv_proj.weight")
    )
    if head is not None and head.ndim == 2:
        options["num_classes"] = len(head)
    if positions is not None and patches is not None and positions.ndim == 3 and patches.ndim == 4:
        options["image_size"] = math.isqrt(positions.shape[1] - 1) * patches.shape[-1]
    return options


def _convert(state: State, _: nn.Module) -> State:
    """Rename the layers of the MLPs, which torchvision's files call as in its first release."""
    number = {"1": "0", "2": "3"}
    return {
        re.sub(r"\.mlp\.linear_([12])\.", lambda match: f".mlp.{number[match[1]]}.", key): value
        for key, value in state.items()
    }


def _transform(module: VisionTransformer, architecture: str, weights: WeightsEnum) -> Compose:
    """The eval transform of the first weights for the model's input size, these ones first.

    Without such weights, the transform of these ones with the shorter side resized to the input size.
    """
    for candidate in (weights, *get_model_weights(architecture)):
        if candidate.meta["min_size"][0] == module.image_size:
            return Compose([candidate.transforms()])
    return Compose([weights.transforms(crop_size=module.image_size, resize_size=module.image_size)])


def describe(module: nn.Module, name: str) -> ModelView:
    """Describe a ``torchvision.models.VisionTransformer``; raises ClasslensError for another model or head."""
    if not isinstance(module, VisionTransformer):
        raise ClasslensError(
            f"model {name!r} is a {type(module).__name__}, not a Vision Transformer of torchvision; {SUPPORTED}"
        )
    refuse = partial(_refuse, name)
    head = _head(module, refuse)
    space = ClassSpace(
        before=norm_maps(module.encoder.ln, refuse), after=(), weight=head.weight.detach(), bias=detached(head.bias)
    )
    side = module.image_size // module.patch_size
    stem = next(layer for layer in module.conv_proj.modules() if isinstance(layer, nn.Conv2d))
    taps: Taps = {}
    return ModelView(
        module=module,
        size_option="img_size",
        name=name,
        blocks=tuple(_describe_block(block, taps, refuse) for block in module.encoder.layers),
        readouts=(Readout(space, slice(0, 1)),),
        prefix=("cls",),
        pooling="cls",
        input_size=(module.image_size, module.image_size),
        grid=lambda _: (side, side),
        channels=stem.in_channels,
        unfused=partial(stepwise_attention, taps),
        exposing_coefficients=partial(stepwise_attention, taps),
        library="torchvision",
    )


def _refuse(name: str, reason: str) -> NoReturn:
    raise ClasslensError(f"model {name!r} {reason}; {SUPPORTED}")


def _head(module: VisionTransformer, refuse: Refuse) -> nn.Linear:
    """The one linear layer of the head; dropout before it does nothing in evaluation mode."""
    layers = [
        layer for layer in module.heads.modules() if not isinstance(layer, nn.Sequential | nn.Dropout | nn.Identity)
    ]
    if any(isinstance(layer, nn.Tanh) for layer in layers):
        refuse("has a hidden layer with a tanh before its head (representation_size)")
    if len(layers) != 1 or not isinstance(layers[0], nn.Linear):
        refuse(f"has a head of {', '.join(type(layer).__name__ for layer in layers) or 'no layers'}")
    return layers[0]


def _describe_block(block: Any, taps: Taps, refuse: Refuse) -> BlockView:
    if type(block) is not EncoderBlock:
        refuse(f"has blocks of type {type(block).__name__}, which are not supported")
    if type(block.mlp) is not MLPBlock or not isinstance(project := block.mlp[3], nn.Linear):
        refuse(f"has an MLP of type {type(block.mlp).__name__}, whose output projection is not supported")
    attention_points, output, scores = multihead_attention(block.self_attention, None, taps, refuse)
    points = {
        "resid_pre": Point(block, "input"),
        # The input of the residual add passes the dropout (an identity in evaluation mode).
        "attn_out": Point(block.dropout),
        "mlp_out": Point(block.mlp),
        "resid_post": Point(block),
        "mlp_coefficients": Point(project, "input"),
    }
    return BlockView(
        points={**points, **attention_points},
        heads=block.self_attention.num_heads,
        attn=output,
        mlp=Output(project.weight.detach(), detached(project.bias)),
        scores=scores,
    )


ADAPTER = Adapter(
    label="torchvision",
    about="Vision Transformers of torchvision",
    names=("torchvision:vit_b_16", "torchvision:vit_b_16.IMAGENET1K_V1"),
    weights="torchvision's usual source, or `checkpoint=`",
    packages=("torchvision",),
    resolves=resolves,
    create=create,
    describe=describe,
    list_models=list_models,
    takes_num_classes=True,
    takes_lora=True,
)
