"""OpenCLIP models as zero-shot classifiers: classes are prompts, compared with the image by cosine similarity."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from classlens.core.attention import Output
from classlens.core.space import ClassSpace
from classlens.core.steps import Projection, UnitLength, compute_dtype, detached
from classlens.errors import ClasslensError, cause, suggestion
from classlens.models.adapter import Adapter, LibraryModel, ModelRequest
from classlens.models.hub import asked_once
from classlens.models.open_clip_names import PREFIX, list_models
from classlens.models.open_clip_text import Tokenizer, ZeroShotClassifier, embedded
from classlens.models.open_clip_weights import fetch, resampled, single_file, size_option
from classlens.models.prompts import TEMPLATES, Template, class_texts, read_list, template_function
from classlens.models.torch_layers import Refuse, Taps, multihead_attention, norm_maps, stepwise_attention
from classlens.models.transforms import Transform
from classlens.models.view import BlockView, ModelView, Point, Readout
from classlens.models.weight_search import read_state

SUPPORTED = "classlens supports OpenCLIP models whose image tower is a Vision Transformer that pools [CLS] or the mean"

_POOLS = {"tok": ("cls", slice(0, 1)), "avg": ("avg", slice(1, None))}


def classifier(
    model: nn.Module,
    tokenizer: Tokenizer,
    class_names: Sequence[str],
    templates: Sequence[Template] | str | Path = TEMPLATES,
) -> ZeroShotClassifier:
    """A zero-shot classifier from an OpenCLIP model that you hold, for any list of classes.

    The embedding of a class is the mean over ``templates`` of its text embeddings of unit length, normalized again
    (the recipe of CLIP's authors). The model itself does not change.

    Args:
        model: an OpenCLIP model.
        tokenizer: its tokenizer.
        class_names: one name for each class.
        templates: strings with ``{}`` for the name, functions of the name, or a file with one a line. With
            ``["{}"]`` the names are whole prompts.

    Raises:
        ClasslensError: an unsupported image tower, or names or templates of another form.

    Examples:
        model = open_clip.create_model("ViT-B-32", pretrained="laion2b_s34b_b79k")
        zero_shot = classifier(model, open_clip.get_tokenizer("ViT-B-32"), ["cat", "dog"], ["a photo of a {}."])
        lens = classlens.load(zero_shot)
    """
    _check_supported(model, type(model).__name__)
    names = read_list(class_names, "class_names")
    functions = [template_function(template) for template in read_list(templates, "templates")]
    return ZeroShotClassifier(model, embedded(model, tokenizer, names, functions), names, tokenizer)


def create(name: str, request: ModelRequest) -> LibraryModel:
    """A zero-shot classifier by its OpenCLIP name; its classes are ``class_names`` or the option ``prompts``."""
    options = dict(request.options)
    if "img_size" in options:
        options["force_image_size"] = options.pop("img_size")
    prompts = options.pop("prompts", None)
    texts, templates = class_texts(
        name, request.class_names, prompts, options.pop("templates", None), num_classes=request.num_classes
    )
    try:
        import open_clip as library
    except ImportError:
        raise ClasslensError(
            f"model {name!r} needs the library open_clip, which is not installed: pip install classlens[open-clip]"
        ) from None
    path = name.removeprefix(PREFIX)
    has_config = path.startswith(("hf-hub:", "local-dir:"))  # a configuration together with its weights
    architecture, _, tag = (path, "", "") if has_config else path.partition("/")
    weights: str | Path | None = None
    tag_config: Mapping[str, Any] = {}
    told: Mapping[str, int] = {}
    if has_config:
        if request.checkpoint is not None:
            raise ClasslensError(f"model {name!r} includes its weights: leave out checkpoint, or give an architecture")
        options = {"load_weights": request.pretrained, "require_pretrained": request.pretrained, **options}
    else:
        tag_config = _tag_config(library, name, architecture, tag, request)
        weights = request.checkpoint
        if weights is None and request.pretrained:
            weights = fetch(library, name, tag_config, options.get("cache_dir")) if tag_config else tag
        # The tag also describes weights that come from a file.
        settings = {"force_quick_gelu": tag_config.get("quick_gelu", False), "force_preprocess_cfg": dict(tag_config)}
        told = size_option(library, architecture, request.checkpoint or (None if tag_config else tag or None))
        options = {**settings, **told, **options}
    model = _build(library, name, architecture, weights, request, options)
    _check_supported(model, name)
    tokenizer = _tokenizer(library, name, architecture, options.get("force_context_length"))
    module = classifier(model, tokenizer, texts, templates).eval()
    if prompts is not None and request.class_names is not None:
        module.class_names = tuple(request.class_names)
    loaded = weights or (has_config and request.pretrained)
    notes = resampled(library, path if has_config else architecture, told, model) if loaded else ()
    return replace(from_module(module), options=told, notes=notes)


def from_module(module: nn.Module) -> LibraryModel:
    """The prompts' class names, and OpenCLIP's eval transform where the model carries its settings."""
    if not isinstance(module, ZeroShotClassifier):
        return LibraryModel(module)
    visual: Any = module.model.visual
    config = getattr(visual, "preprocess_cfg", None)
    if not config:
        return LibraryModel(module, module.class_names)
    from open_clip.transform import PreprocessCfg, image_transform_v2

    transform: Transform = image_transform_v2(PreprocessCfg(**config), is_train=False)
    return LibraryModel(module, module.class_names, transform)


def describe(module: nn.Module, name: str) -> ModelView:
    """Describe a ``ZeroShotClassifier``; raises ClasslensError for a bare CLIP model, with the way out."""
    if not isinstance(module, ZeroShotClassifier):
        raise ClasslensError(
            f"model {name!r} is a {type(module).__name__} of OpenCLIP, which has no classes of its own: give "
            "classlens.models.open_clip.classifier(model, tokenizer, class_names)"
        )
    model: Any = module.model
    scale, bias = model.logit_scale.detach().exp(), getattr(model, "logit_bias", None)
    # The model scales its features; scaling the class embedding instead gives the same logits.
    weight = module.text.to(compute_dtype(module.text.dtype)) * scale
    if bias is not None:
        bias = bias.detach().expand(len(weight))
    return replace(_describe_tower(model, name, weight, bias), module=module)


# The image tower


def _check_supported(model: nn.Module, name: str) -> None:
    """Raises ClasslensError for an unsupported image tower, before text is embedded."""
    _describe_tower(model, name, torch.ones(1, 1), None)


def _describe_tower(model: Any, name: str, weight: Tensor, bias: Tensor | None) -> ModelView:
    """The view of a model's image tower with a class embedding."""
    refuse = partial(_refuse, name)
    visual = getattr(model, "visual", None)
    for base in type(visual).__mro__:
        if base.__module__.partition(".")[0] == "open_clip" and base.__name__ in _TOWERS:
            return _TOWERS[base.__name__](visual, name, weight, bias, refuse)
    refuse(f"has an image tower of type {type(visual).__name__}")


def _refuse(name: str, reason: str) -> NoReturn:
    raise ClasslensError(f"model {name!r} {reason}; {SUPPORTED}")


def _describe_native(visual: Any, name: str, weight: Tensor, bias: Tensor | None, refuse: Refuse) -> ModelView:
    """OpenCLIP's ``VisionTransformer``."""
    if visual.attn_pool is not None:
        refuse("pools its tokens by attention (attentional_pool)")
    if visual.pool_type not in _POOLS:
        refuse(f"pools with {visual.pool_type!r}")
    pooling, pooled = _POOLS[visual.pool_type]
    norm = norm_maps(visual.ln_post, refuse)
    projection = () if visual.proj is None else (Projection(visual.proj.detach().T),)
    before, after = ((), norm) if visual.final_ln_after_pool else (norm, ())
    space = ClassSpace(before, (*after, *projection, UnitLength()), weight, bias)
    rows, columns = visual.grid_size
    height, width = visual.image_size
    taps: Taps = {}
    return ModelView(
        module=visual,
        size_option="img_size",
        name=name,
        blocks=tuple(_describe_block(block, taps, refuse) for block in visual.transformer.resblocks),
        readouts=(Readout(space, pooled),),
        prefix=("cls",),
        pooling=pooling,
        input_size=(height, width),
        grid=lambda _: (rows, columns),
        channels=visual.conv1.in_channels,
        unfused=partial(stepwise_attention, taps),
        exposing_coefficients=partial(stepwise_attention, taps),
        library="open_clip",
    )


def _describe_block(block: Any, taps: Taps, refuse: Refuse) -> BlockView:
    from open_clip.transformer import LayerScale, ResidualAttentionBlock

    if type(block) is not ResidualAttentionBlock:
        refuse(f"has blocks of type {type(block).__name__}, whose attention is not supported")
    scales: list[Tensor | None] = []
    for layer in (block.ls_1, block.ls_2):
        if not isinstance(layer, LayerScale | nn.Identity):
            refuse(f"scales its sublayers with {type(layer).__name__}, which is not supported")
        scales.append(None if isinstance(layer, nn.Identity) else layer.gamma.detach())
    project = block.mlp.c_proj
    if not isinstance(project, nn.Linear):
        refuse(f"has an MLP that ends in {type(project).__name__}, which is not supported")
    attention_points, output, scores = multihead_attention(block.attn, scales[0], taps, refuse)
    # Older releases run their blocks on [token, image, width].
    order: dict[str, Any] = {} if block.attn.batch_first else {"read": _image_first, "write": _tokens_first}
    points = {
        "resid_pre": Point(block, "input", **order),
        # The input of the residual add passes the scales (identities without LayerScale).
        "attn_out": Point(block.ls_1, **order),
        "mlp_out": Point(block.ls_2, **order),
        "resid_post": Point(block, **order),
        "mlp_coefficients": Point(project, "input", **order),
    }
    return BlockView(
        points={**points, **attention_points},
        heads=block.attn.num_heads,
        attn=output,
        mlp=Output(project.weight.detach(), detached(project.bias), scale=scales[1]),
        scores=scores,
    )


def _image_first(x: Tensor) -> Tensor:
    return x.transpose(0, 1)


def _tokens_first(_: Tensor, new: Tensor) -> Tensor:
    return new.transpose(0, 1)


def _describe_timm(visual: Any, name: str, weight: Tensor, bias: Tensor | None, refuse: Refuse) -> ModelView:
    """``TimmModel``: a model of timm; its head, if any, and a layer of OpenCLIP compute the features."""
    from classlens.models import timm

    head = getattr(visual.trunk, "head", None)
    trunk = copy(visual.trunk)
    if isinstance(head, nn.Identity):
        # timm's adapter requires a head; this copy of the outermost module shares all other modules.
        trunk._modules = {**trunk._modules, "head": nn.Linear(visual.trunk.num_features, 1, device="meta")}
    view = timm.describe(trunk, name)
    if len(view.readouts) != 1:
        refuse("has several heads")
    (readout,) = view.readouts
    projections = [] if isinstance(head, nn.Identity) else [Projection(readout.space.weight, readout.space.bias)]
    for layer in visual.head:
        if isinstance(layer, nn.Linear):
            projections.append(Projection(layer.weight.detach(), detached(layer.bias)))
        elif not isinstance(layer, nn.Dropout):
            refuse(f"has an image tower that ends in {type(layer).__name__}, which is not linear")
    after = (*readout.space.after, *projections, UnitLength())
    space = replace(readout.space, after=after, weight=weight, bias=bias)
    return replace(view, module=visual, readouts=(replace(readout, space=space),), library="open_clip")


_TOWERS: dict[str, Callable[[Any, str, Tensor, Tensor | None, Refuse], ModelView]] = {
    "VisionTransformer": _describe_native,
    "TimmModel": _describe_timm,
}


# Names and weights


def _tag_config(library: Any, name: str, architecture: str, tag: str, request: ModelRequest) -> Mapping[str, Any]:
    """The library's configuration for the weights of a tag; empty for a file."""
    if architecture not in library.list_models():
        hint = suggestion(architecture, library.list_models()) or "; see the names with open_clip.list_models()"
        raise ClasslensError(f"model {name!r} is not known to OpenCLIP{hint}")
    vision = library.get_model_config(architecture)["vision_cfg"]
    if isinstance(vision.get("layers"), list):
        _refuse(name, "has a ResNet as its image tower")
    if vision.get("attentional_pool"):
        _refuse(name, "pools its tokens by attention (attentional_pool)")
    tags = library.list_pretrained_tags_by_model(architecture)
    if not tag and request.pretrained and request.checkpoint is None:
        examples = ", ".join(tags[:5]) + (", …" if len(tags) > 5 else "") if tags else "none, so give checkpoint=FILE"
        raise ClasslensError(
            f"model {name!r} names no weights: expected {PREFIX}{architecture}/TAG, checkpoint=FILE or "
            f"pretrained=False; OpenCLIP's tags for it are {examples}"
        )
    config: Mapping[str, Any] = library.get_pretrained_cfg(architecture, tag)
    if tag and not config and not os.path.isfile(tag):
        hint = suggestion(tag, tags) or f"; see open_clip.list_pretrained_tags_by_model({architecture!r})"
        raise ClasslensError(f"weights {tag!r} of model {name!r} are neither a tag of OpenCLIP nor a file{hint}")
    return config


def _build(
    library: Any,
    name: str,
    architecture: str,
    weights: str | Path | None,
    request: ModelRequest,
    options: Mapping[str, Any],
) -> nn.Module:
    path = None if weights is None else str(weights)
    if path is not None and not os.path.exists(path):
        read_state(path)  # raises the error for a missing file
    # With pretrained=False too, a text tower of transformers would fetch its own weights.
    text = {} if request.pretrained else {"pretrained_hf": False}
    try:
        with single_file(path) as file:
            model: nn.Module = library.create_model(architecture, pretrained=file, **{**text, **options})
    except ClasslensError:
        raise
    except TypeError as error:
        raise ClasslensError(
            f"model {name!r} does not take these options ({cause(error)}): see OpenCLIP's documentation"
        ) from None
    except Exception as error:
        if path is None:
            raise ClasslensError(
                f"model {name!r} cannot be built ({cause(error)}): check its name and options, and that its files are "
                "on this machine"
            ) from None
        read_state(path)  # raises the error for a file that cannot be loaded at all
        raise ClasslensError(
            f"checkpoint {path!r} does not fit model {name!r} ({cause(error)}): give the architecture that it was "
            "trained with"
        ) from None
    return model.eval()


def _tokenizer(library: Any, name: str, architecture: str, length: int | None) -> Callable[..., Tensor]:
    try:
        with asked_once() as why:
            tokenizer: Callable[..., Tensor] = library.get_tokenizer(architecture, context_length=length)
    except Exception as error:
        raise ClasslensError(
            f"the tokenizer of model {name!r} is not on this machine and could not be fetched ({why(error)}): "
            "connect to the network once, or make the model and its tokenizer yourself and give "
            "classlens.models.open_clip.classifier(model, tokenizer, class_names)"
        ) from None
    return tokenizer


ADAPTER = Adapter(
    label="OpenCLIP",
    about="CLIP and SigLIP models of OpenCLIP as zero-shot classifiers; classes are your prompts, as `class_names=`",
    names=(f"{PREFIX}ViT-B-32/laion2b_s34b_b79k",),
    weights="OpenCLIP's usual source, or `checkpoint=`",
    packages=("open_clip", ZeroShotClassifier.__module__),
    resolves=lambda name: name.startswith(PREFIX),
    create=create,
    describe=describe,
    from_module=from_module,
    list_models=list_models,
    classes_from="your prompts",
    takes_templates=True,
)
