"""Weights of classifiers of transformers: from their source, or from a state dict or an adapter of any release."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from classlens.errors import ClasslensError, cause
from classlens.models.checkpoint import State
from classlens.models.lora import Lora
from classlens.models.weight_files import INDEX, WEIGHTS, check_index

# Weights that do not contribute to the logits; a checkpoint may lack them.
_UNUSED = ("mask_token", "vision_model.head.")


def converted(model_class: Any, config: Any, state: State) -> State:
    """The names of this release for a state dict of an older one; none where transformers cannot read it."""
    with suppress(Exception):  # transformers may raise anything about a state dict of something else
        module, report = _from_state(model_class, config, state)
        new: State = {key: value for key, value in module.state_dict().items() if key not in report["missing_keys"]}
        return new
    return {}


def _from_state(model_class: Any, config: Any, state: State) -> tuple[nn.Module, Any]:
    loaded: tuple[nn.Module, Any] = model_class.from_pretrained(
        None,
        config=config,
        state_dict=state,
        attn_implementation="sdpa",
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    return loaded


def current_names(model_class: Any, config: Any, lora: Lora) -> dict[str, str]:
    """Paths of layers in this release of transformers, by those of the release that an adapter was saved with.

    transformers reads a state dict whose tensors hold their own numbers, which are then found in the model.
    """
    shapes = {f"{path}.weight": (len(layer.up), *layer.down.shape[1:]) for path, layer in lora.layers.items()}
    shapes |= {name: tuple(value.shape) for name, value in lora.whole.items()}
    with torch.device("meta"):
        known = model_class(config).state_dict()
    if all(name in known for name in shapes):
        return {}
    marks = {name: torch.full(shape, float(number)) for number, (name, shape) in enumerate(shapes.items())}
    now = converted(model_class, config, marks)
    names = {list(shapes)[int(value.flatten()[0])]: name for name, value in now.items()}
    return names | {old.removesuffix(".weight"): name.removesuffix(".weight") for old, name in names.items()}


def load_weights(
    model_class: Any,
    name: str,
    source: str,
    config: Any,
    options: Mapping[str, Any],
    why: Callable[[BaseException], str],
    state: State | None,
    later: frozenset[str],
) -> nn.Module:
    """The module with the weights of its source or of a state dict; ``later``: names of tensors that come after."""
    folder = Path(source) / options.get("subfolder", "")
    first = next((file for file in WEIGHTS if (folder / file).is_file()), "") if state is None else ""
    if first.endswith(INDEX):
        check_index(folder / first)
    try:
        module, report = (
            _from_state(model_class, config, state)
            if state is not None
            else model_class.from_pretrained(
                source,
                config=config,
                attn_implementation="sdpa",
                dtype=torch.float32,
                weights_only=True,
                ignore_mismatched_sizes=True,  # reported by transformers, and refused below
                output_loading_info=True,
                **options,
            )
        )
    except Exception as error:  # a broken file or network may raise anything
        if isinstance(error, OSError) and not os.path.isdir(source):
            raise not_fetched(name, source, why(error)) from None
        if isinstance(error, pickle.UnpicklingError):
            raise ClasslensError(
                f"the weights of model {name!r} are pickled Python objects, which could run code when loaded: if you "
                "trust them, convert them once with save_pretrained and give that folder"
            ) from None
        raise ClasslensError(
            f"the weights of model {name!r} cannot be read ({cause(error)}): expected whole model.safetensors or "
            "pytorch_model.bin files; check that they are complete"
        ) from None
    missing = [key for key in report["missing_keys"] if not any(unused in key for unused in _UNUSED)]
    missing = [key for key in missing if key not in later]
    mismatched = [mismatch for mismatch in report["mismatched_keys"] if mismatch[0] not in later]
    if mismatched:
        key, shape, expected = min(mismatched)
        raise ClasslensError(
            f"the weights of model {name!r} do not fit its config.json: {key!r} has shape {list(shape)} where the "
            f"model has {list(expected)}; give the config.json that belongs to them"
        )
    if missing:
        first = next(key for key in module.state_dict() if key in missing)
        raise ClasslensError(
            f"the weights of model {name!r} lack {len(missing)} tensors of {model_class.__name__}, first {first!r}, "
            "which would be random: give a checkpoint that was trained with its classification head"
        )
    pretrained: nn.Module = module
    return pretrained


def not_fetched(name: str, source: str, why: str) -> ClasslensError:
    return ClasslensError(
        f"model {name!r} is not on this machine and could not be fetched ({why}): fetch config.json, "
        f"preprocessor_config.json and model.safetensors of https://huggingface.co/{source} and give their folder as "
        "the model (--model FOLDER), or connect to the network once"
    )
