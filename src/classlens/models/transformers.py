"""Vision Transformer classifiers of Hugging Face transformers: from the hub, from a folder, or as a module."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import torch
from PIL import Image
from torch import Tensor, nn

from classlens.errors import ClasslensError, cause
from classlens.models.adapter import Adapter, LibraryModel, ModelRequest
from classlens.models.checkpoint import State
from classlens.models.classes import ordered_names
from classlens.models.hub import asked_once
from classlens.models.lora import is_adapter, read_lora
from classlens.models.recipe import Recipe, pillow_mode
from classlens.models.trainer_folder import CONFIG, is_model_folder, model_folder
from classlens.models.transformers_models import SPECS, SUPPORTED, describe, find_part, find_spec, refuse_model
from classlens.models.transformers_names import list_models
from classlens.models.transformers_weights import converted, current_names, load_weights, not_fetched
from classlens.models.transforms import Transform
from classlens.models.view import ProblemType
from classlens.models.weight_search import plain_heads, read_weights

_OPTIONS = ("cache_dir", "revision", "subfolder")
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def resolves(name: str) -> bool:
    """``hf:owner/name``, ``owner/name``, or a folder of ``save_pretrained`` or of the Trainer."""
    if name.startswith("hf:") or is_model_folder(Path(name)):
        return True
    return "/" in name and ":" not in name and not os.path.isfile(name)


def create(name: str, request: ModelRequest) -> LibraryModel:
    """A model of the hub or a folder, with its own image processor; ``pretrained=False`` needs its config alone.

    A folder may be that of an adapter, whose base is then the model, or of a run with checkpoints.
    """
    source = name.removeprefix("hf:")
    if not os.path.isdir(source):
        return _create(name, source, request)
    taken, notes = model_folder(Path(source))
    if is_adapter(taken) and not (taken / CONFIG).is_file():
        return _on_its_base(name, taken, notes, request)
    if notes:
        source = str(taken)
    model = _create(name, source, request)
    transform = model.transform or (_transform(_import_library(name), str(taken.parent), {}) if notes else None)
    return replace(model, transform=transform, notes=(*notes, *model.notes))


def _on_its_base(name: str, folder: Path, notes: tuple[str, ...], request: ModelRequest) -> LibraryModel:
    """The model of an adapter in a folder."""
    lora = read_lora(folder)
    base = str(lora.base or "").removeprefix("hf:")
    if not base or not resolves(base) or is_adapter(Path(base)) or request.lora is not None:
        raise ClasslensError(
            f"model {name!r} is an adapter of {base or 'a base without a name'}: give the base as the model and the "
            "folder as checkpoint= (--checkpoint)"
        )
    pinned = {} if lora.revision is None or os.path.isdir(base) else {"revision": lora.revision}
    model = _create(base, base, replace(request, lora=lora, options={**pinned, **request.options}))
    transform = _transform(_import_library(name), str(folder), {}) or model.transform
    return replace(model, transform=transform, notes=(*notes, *model.notes))


def _create(name: str, source: str, request: ModelRequest) -> LibraryModel:
    library = _import_library(name)
    is_folder = os.path.isdir(source)
    if not is_folder and not _HUB_NAME.fullmatch(source):
        raise ClasslensError(f"model {name!r} is neither a folder on this machine nor a hub name: give owner/name")
    options = dict(request.options)
    size = options.pop("img_size", None)
    unknown = next((key for key in options if key not in _OPTIONS), None)
    if unknown is not None:
        raise ClasslensError(
            f"{unknown} does not go with model {name!r} of transformers, which takes {', '.join(_OPTIONS)}: give a "
            "folder that save_pretrained wrote"
        )
    notes: tuple[str, ...] = ()
    with _quiet(library, bars=not is_folder), nullcontext(cause) if is_folder else asked_once() as why:
        config = _config(library, name, source, options, why)
        has_head = request.checkpoint is not None or (request.lora is not None and request.lora.num_classes is not None)
        model_class = getattr(library, _architecture(library, name, config, needs_head=not has_head))
        _check_size(name, size, getattr(config, "vision_config", config).image_size)
        state = None
        if request.checkpoint is not None:
            with torch.device("meta"):
                expected = model_class(config).state_dict()
            found = read_weights(request.checkpoint, expected, partial(converted, model_class, config))
            state, notes = plain_heads(found.state, expected), found.notes
            config.num_labels = request.num_classes or _rows(state, model_class) or config.num_labels
        elif request.rows not in (None, config.num_labels):
            if request.pretrained and request.lora is None:
                raise ClasslensError(
                    f"num_classes is {request.num_classes}, but the head of model {name!r} has {config.num_labels} "
                    "classes: leave it out, or give a checkpoint that was fine-tuned for yours"
                )
            config.num_labels = request.rows
        if request.pretrained or state is not None:
            whole = frozenset() if request.lora is None else frozenset(request.lora.whole)
            module = load_weights(model_class, name, source, config, options, why, state, whole)
        else:
            module = model_class(config).eval()
        if request.lora is not None:
            names = current_names(model_class, config, request.lora)
            notes = request.lora.renamed(names).merge(module, name)
        transform = _transform(library, source, options)
    return LibraryModel(module, _class_names(module), transform, problem_type=_problem_type(module), notes=notes)


def _rows(state: State, model_class: Any) -> int | None:
    """Rows of the head in a state dict."""
    head = state.get(f"{SPECS[model_class.__name__].heads[0]}.weight")
    return None if head is None else len(head)


def from_module(module: nn.Module) -> LibraryModel:
    """Class names from the config, and the image processor beside the weights, if it is on this machine."""
    source = str(getattr(module, "name_or_path", "") or "")
    transform = None
    if source and (os.path.isdir(source) or _HUB_NAME.fullmatch(source)):
        library = _import_library(source)
        with _quiet(library, bars=False):
            transform = _transform(library, source, {"local_files_only": True})
    return LibraryModel(module, _class_names(module), transform, problem_type=_problem_type(module))


def _import_library(name: str) -> ModuleType:
    try:
        import transformers
    except ImportError:
        raise ClasslensError(
            f"model {name!r} needs transformers, which is not installed: pip install 'classlens[transformers]'"
        ) from None
    return transformers


@contextmanager
def _quiet(library: Any, *, bars: bool) -> Iterator[None]:
    """Suppress transformers' loading reports; the errors below summarize them."""
    logging = library.utils.logging
    verbosity, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    if not bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()


def _config(
    library: Any, name: str, source: str, options: Mapping[str, Any], why: Callable[[BaseException], str]
) -> Any:
    """The config as data: code in the checkpoint does not run, and its attention implementation is ignored."""
    settings = {"trust_remote_code": False, "attn_implementation": "sdpa"}
    try:
        return library.AutoConfig.from_pretrained(source, **settings, **options)
    except Exception as error:  # a broken file or network may raise anything
        if isinstance(error, OSError) and not os.path.isdir(source):
            raise not_fetched(name, source, why(error)) from None
        if (Path(source) / options.get("subfolder", "") / CONFIG).is_file():
            reason = f"has a config.json that transformers does not accept ({cause(error)})"
        else:
            reason = "has no config.json"
        raise ClasslensError(f"model {name!r} {reason}; {SUPPORTED}") from None


def _architecture(library: Any, name: str, config: Any, *, needs_head: bool) -> str:
    """The name of a model class in ``SPECS``; raises ClasslensError for another one, or without a needed head."""
    if config.model_type == "timm_wrapper":
        raise ClasslensError(
            f"model {name!r} is a timm model: give it as 'hf-hub:owner/name', or a folder as 'local-dir:folder'"
        )
    if getattr(config, "quantization_config", None) is not None:
        refuse_model(name, "is quantized")
    supported = [model_class for model_class in SPECS if type(config) is getattr(library, model_class).config_class]
    architecture = next(iter(config.architectures or supported), None)
    if supported and architecture in supported:
        return str(architecture)
    if supported and not needs_head:
        return supported[0]
    if supported:
        refuse_model(name, f"holds a {architecture}, not a {supported[0]} with its classification head")
    refuse_model(name, f"is a {architecture or config.model_type}")


def _check_size(name: str, size: Any, own: Any) -> None:
    """Raises ClasslensError for another input size than the one of the config."""
    wanted, found = ((side, side) if isinstance(side, int) else tuple(side) for side in (size or own, own))
    if wanted != found:
        raise ClasslensError(
            f"img_size of model {name!r} is {wanted[0]}×{wanted[1]}, but its config.json and position embeddings are "
            f"for {found[0]}×{found[1]}: leave it out"
        )


def _class_names(module: Any) -> Sequence[str] | None:
    """The names in the config, unless they are placeholders or do not match the head."""
    labels: dict[Any, str] = getattr(module.config, "id2label", None) or {}
    spec = find_spec(module)
    rows = None if spec is None else getattr(find_part(module, spec.heads[:1]), "out_features", None)
    if len(labels) != rows:
        return None
    try:
        names = [str(name) for name in ordered_names(labels)]
    except ClasslensError:
        return None
    return None if all(name == f"LABEL_{index}" for index, name in enumerate(names)) else names


def _problem_type(module: Any) -> ProblemType | None:
    """The meaning of the outputs in training, where the config says it."""
    problem_type = getattr(module.config, "problem_type", None)
    return problem_type if problem_type in get_args(ProblemType) else None


@dataclass(frozen=True)
class _Normalization:
    """Mean and standard deviation of a processor's normalization of colors from 0 to 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Processing:
    """An image processor of transformers as a function from a picture to ``[channel, height, width]``."""

    processor: Any

    def __call__(self, image: Image.Image) -> Tensor:
        pixels: Tensor = self.processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels

    @property
    def recipe(self) -> Recipe | None:
        """Resize, crop and normalization; None for a processor with other steps."""
        processor = self.processor
        mean_and_std = self.transforms[0]
        resize: int | tuple[int, int] | None = None
        if getattr(processor, "do_resize", False):
            sides = dict(processor.size)
            if sides.get("height") and sides.get("width"):
                resize = (sides["height"], sides["width"])
            elif not sides.get("shortest_edge") or sides.get("longest_edge"):
                return None
            else:
                resize = sides["shortest_edge"]
        crop = dict(processor.crop_size) if getattr(processor, "do_center_crop", False) else None
        size = None if crop is None else (crop["height"], crop["width"])
        return Recipe(resize, size, pillow_mode(processor.resample), mean_and_std.mean, mean_and_std.std)

    @property
    def transforms(self) -> tuple[_Normalization, ...]:
        processor = self.processor
        # The value of white after rescaling; 1 for the usual factor of 1/255.
        white = 255 * processor.rescale_factor if processor.do_rescale else 255.0
        mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else (0.0, 1.0)
        return (_Normalization(*(tuple((torch.as_tensor(x) / white).flatten().tolist()) for x in (mean, std))),)


def _transform(library: Any, source: str, options: Mapping[str, Any]) -> Transform | None:
    """The checkpoint's image processor; None where it is missing or broken."""
    try:
        return Processing(library.AutoImageProcessor.from_pretrained(source, trust_remote_code=False, **options))
    except Exception:  # without a transform, a picture is refused later with the way out
        return None


ADAPTER = Adapter(
    label="transformers",
    about="Vision Transformer classifiers of Hugging Face transformers, from the hub or from a folder",
    names=("owner/name", "hf:owner/name", "FOLDER"),
    weights="the hub's cache, the folder, or `checkpoint=`",
    packages=("transformers",),
    resolves=resolves,
    create=create,
    describe=describe,
    from_module=from_module,
    list_models=list_models,
    takes_lora=True,
)
