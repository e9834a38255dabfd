"""Hugging Face transformers' Vision Transformers with a classifier: from the hub, a folder, or as a module."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from classlens.errors import ClasslensError, cause
from classlens.models.families import Created, Known, Request
from classlens.models.transformers_layout import MODELS, SUPPORTED, part_of, refused, spec_of, view
from classlens.models.transforms import Transform

__all__ = ["claims", "create", "known", "known_as", "view"]

# Weights that take no part in the logits: a checkpoint may lack them.
_IDLE = ("mask_token", "vision_model.head.")
_OPTIONS = ("cache_dir", "revision", "subfolder")
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def claims(name: str) -> bool:
    """``hf:owner/name``, ``owner/name``, or a folder as ``save_pretrained`` writes it."""
    if name.startswith("hf:") or (os.path.isdir(name) and os.path.isfile(os.path.join(name, "config.json"))):
        return True
    return "/" in name and ":" not in name and not os.path.isfile(name)


def create(name: str, request: Request) -> Created:
    """A model of the hub or a folder, with its own image processor; ``pretrained=False`` takes its config alone."""
    library, where = _library(name), name.removeprefix("hf:")
    local = os.path.isdir(where)
    if not local and not _HUB_NAME.fullmatch(where):
        raise ClasslensError(
            f"model {name!r} is neither a folder on this machine nor a name like owner/name of the hub"
        )
    unknown = [key for key in request.options if key not in _OPTIONS]
    if request.checkpoint is not None or unknown:
        raise ClasslensError(
            f"{unknown[0] if unknown else 'checkpoint'} does not go with model {name!r} of transformers, which takes "
            f"{', '.join(_OPTIONS)}: give a folder that save_pretrained wrote"
        )
    options = dict(request.options)
    with _quiet(library, bars=not local):
        config = _config(library, name, where, options)
        kind = getattr(library, _architecture(library, name, config))
        if request.num_classes not in (None, config.num_labels):
            if request.pretrained:
                raise ClasslensError(
                    f"num_classes is {request.num_classes}, but the head of model {name!r} has {config.num_labels} "
                    "classes: leave it out, or give a checkpoint that was fine-tuned for yours"
                )
            config.num_labels = request.num_classes
        module = _pretrained(kind, name, where, config, options) if request.pretrained else kind(config).eval()
        transform = _transform(library, where, options)
    return Created(module, _class_names(module), transform)


def known() -> Iterator[Known]:
    """The classes that are read, and the checkpoints in the local hub cache that hold one of them."""
    from classlens.models import transformers_names

    return transformers_names.known(MODELS)


def known_as(module: nn.Module) -> Created:
    """Class names of the config, and the image processor that is on this machine with the weights, if there is one."""
    where = str(getattr(module, "name_or_path", "") or "")
    transform = None
    if where and (os.path.isdir(where) or _HUB_NAME.fullmatch(where)):
        library = _library(where)
        with _quiet(library, bars=False):
            transform = _transform(library, where, {"local_files_only": True})
    return Created(module, _class_names(module), transform)


def _library(name: str) -> ModuleType:
    try:
        import transformers
    except ImportError:
        raise ClasslensError(
            f"model {name!r} needs transformers, which is not installed: pip install 'classlens[transformers]'"
        ) from None
    return transformers


@contextmanager
def _quiet(library: Any, *, bars: bool) -> Iterator[None]:
    """Without transformers' reports of what it loads, which the errors here put in a sentence."""
    logging = library.utils.logging
    verbosity, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    if not bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


def _config(library: Any, name: str, where: str, options: Mapping[str, Any]) -> Any:
    """The config, which is data: no code of the checkpoint is run, and what it says of attention is not followed."""
    try:
        return library.AutoConfig.from_pretrained(where, trust_remote_code=False, attn_implementation="sdpa", **options)
    except Exception as error:  # what a broken file or network raises is not bounded
        if isinstance(error, OSError) and not os.path.isdir(where):
            raise _unfetched(name, where, error) from None
        if os.path.isfile(os.path.join(where, options.get("subfolder", ""), "config.json")):
            reason = f"has a config.json that transformers does not read ({cause(error)})"
        else:
            reason = "has no config.json"
        raise ClasslensError(f"model {name!r} {reason}; {SUPPORTED}") from None


def _architecture(library: Any, name: str, config: Any) -> str:
    """The name of a model class in the table; raises ClasslensError for another one."""
    if config.model_type == "timm_wrapper":
        raise ClasslensError(
            f"model {name!r} is a timm model: give it as 'hf-hub:owner/name', or a folder as 'local-dir:folder'"
        )
    if getattr(config, "quantization_config", None) is not None:
        refused(name, "is quantized")
    own = [kind for kind in MODELS if type(config) is getattr(library, kind).config_class]
    found = (config.architectures or own)[:1]
    if own and found and found[0] in own:
        return str(found[0])
    if own:
        refused(name, f"holds a {found[0]}, not a {own[0]} with its classification head")
    refused(name, f"is a {found[0] if found else config.model_type}")


def _pretrained(kind: Any, name: str, where: str, config: Any, options: Mapping[str, Any]) -> nn.Module:
    try:
        module, report = kind.from_pretrained(
            where,
            config=config,
            attn_implementation="sdpa",
            dtype=torch.float32,
            weights_only=True,
            ignore_mismatched_sizes=True,  # they are reported, and refused below
            output_loading_info=True,
            **options,
        )
    except Exception as error:  # as above
        if isinstance(error, OSError) and not os.path.isdir(where):
            raise _unfetched(name, where, error) from None
        if isinstance(error, pickle.UnpicklingError):
            raise ClasslensError(
                f"the weights of model {name!r} are pickled Python objects, which could run code when loaded: where "
                "you trust them, convert them once with save_pretrained and give that folder"
            ) from None
        raise ClasslensError(
            f"the weights of model {name!r} cannot be read ({cause(error)}): expected whole model.safetensors or "
            "pytorch_model.bin files; check that they are complete"
        ) from None
    missing = [key for key in report["missing_keys"] if not any(idle in key for idle in _IDLE)]
    if report["mismatched_keys"]:
        key, found, expected = min(report["mismatched_keys"])
        raise ClasslensError(
            f"the weights of model {name!r} do not fit its config.json: {key!r} has shape {list(found)} where the "
            f"model has {list(expected)}; give the config.json that belongs to them"
        )
    if missing:
        first = next(key for key in module.state_dict() if key in missing)
        raise ClasslensError(
            f"the weights of model {name!r} lack {len(missing)} of those of {kind.__name__}, first {first!r}, which "
            "would be random: give a checkpoint that was trained with its classification head"
        )
    loaded: nn.Module = module
    return loaded


def _unfetched(name: str, where: str, error: Exception) -> ClasslensError:
    return ClasslensError(
        f"model {name!r} is not on this machine and could not be fetched ({cause(error)}): fetch config.json, "
        f"preprocessor_config.json and model.safetensors of https://huggingface.co/{where} and give their folder as "
        "the model (--model FOLDER), or connect to the network once"
    )


def _class_names(module: Any) -> Sequence[str] | None:
    """The names in the config, unless they are placeholders or not those of the head."""
    labels: dict[int, str] = getattr(module.config, "id2label", None) or {}
    spec = spec_of(module)
    rows = None if spec is None else getattr(part_of(module, spec.heads[:1]), "out_features", None)
    if sorted(labels) != list(range(len(labels))) or len(labels) != rows:
        return None
    names = [str(labels[index]) for index in range(len(labels))]
    return None if all(name == f"LABEL_{index}" for index, name in enumerate(names)) else names


@dataclass(frozen=True)
class _Normalization:
    """The constants that undo what a processor does to a picture's colors, from 0 to 1."""

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
    def transforms(self) -> tuple[_Normalization, ...]:
        own = self.processor
        # What the processor takes for white; 1 for the usual factor of 1/255.
        white = 255 * own.rescale_factor if own.do_rescale else 255.0
        mean, std = (own.image_mean, own.image_std) if own.do_normalize else (0.0, 1.0)
        return (_Normalization(*(tuple((torch.as_tensor(x) / white).flatten().tolist()) for x in (mean, std))),)


def _transform(library: Any, where: str, options: Mapping[str, Any]) -> Transform | None:
    """The checkpoint's own image processor; None where it has none that can be read."""
    try:
        return Processing(library.AutoImageProcessor.from_pretrained(where, trust_remote_code=False, **options))
    except Exception:  # whatever is wrong, a picture is refused later, with the way out
        return None
