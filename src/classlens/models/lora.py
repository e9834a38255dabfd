"""Low-rank adapters in a folder of peft: read without running code, and added to the weights that they adapt."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from classlens.core.steps import compute_dtype
from classlens.errors import ClasslensError
from classlens.models.checkpoint import State, read_tree

_CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_PARTS = re.compile(r"(.+)\.lora_(A\.weight|B\.weight|B\.bias|magnitude_vector)(?:\.weight)?")
# Heads of timm, torchvision and transformers.
_HEADS = ("head", "heads.head", "classifier", "cls_classifier")
# Settings that say how an adapter was trained, or that its tensors show; another one changes what it computes.
_KNOWN = frozenset(
    [
        *("alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "ensure_weight_tying", "eva_config"),
        *("exclude_modules", "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform"),
        *("loftq_config", "lora_alpha", "lora_bias", "lora_dropout", "megatron_core", "modules_to_save", "peft_type"),
        *("peft_version", "qalora_group_size", "r", "rank_pattern", "revision", "runtime_config", "target_modules"),
        *("task_type", "use_dora", "use_rslora"),
    ]
)
# Starts of training that leave the weights of the base as they are.
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class LoraLayer:
    """The adapter of one linear layer or convolution.

    Args:
        down: ``A``, ``[rank, in]`` or ``[rank, in, height, width]``.
        up: ``B``, ``[out, rank]`` or ``[out, rank, 1, 1]``.
        scaling: factor of the product, ``alpha / r`` or ``alpha / sqrt(r)``.
        bias: bias of ``B``.
        magnitude: length of each row after the adapter is added (DoRA).
    """

    down: Tensor
    up: Tensor
    scaling: float
    bias: Tensor | None = None
    magnitude: Tensor | None = None

    def added_to(self, weight: Tensor) -> Tensor:
        """``W + s B A``; with a magnitude ``m``, each row of it at the length ``m``.

        Sources: Hu et al., *LoRA*, ICLR 2022; Liu et al., *DoRA*, ICML 2024.
        """
        dtype = compute_dtype(weight.dtype)
        product = self.up.to(dtype).flatten(1) @ self.down.to(dtype).flatten(1)
        merged = weight.to(dtype) + self.scaling * product.view_as(weight)
        if self.magnitude is not None:
            lengths = merged.flatten(1).norm(dim=1)
            factors = self.magnitude.to(dtype).flatten() / lengths
            merged = merged * factors.view(-1, *(1,) * (merged.ndim - 1))
        return merged.to(weight.dtype)


@dataclass(frozen=True)
class Lora:
    """An adapter: layers by their paths in the base model, and tensors that replace those of the base.

    ``revision`` of the base on a hub is the one that the adapter was trained on, where its file names it.
    """

    folder: Path
    base: str | None
    layers: Mapping[str, LoraLayer]
    whole: State = field(default_factory=dict)
    revision: str | None = None

    @property
    def num_classes(self) -> int | None:
        """Rows of the head that was saved whole; None where the head is that of the base."""
        heads = (self.whole.get(f"{head}.weight") for head in _HEADS)
        return next((len(weight) for weight in heads if weight is not None and weight.ndim == 2), None)

    def renamed(self, names: Mapping[str, str]) -> Lora:
        """With paths of layers and names of tensors by another release of the library."""
        return replace(
            self,
            layers={names.get(path, path): layer for path, layer in self.layers.items()},
            whole={names.get(name, name): value for name, value in self.whole.items()},
        )

    def merge(self, module: nn.Module, name: str) -> tuple[str, ...]:
        """Merge the adapter into a base model in place; returns what is said about it.

        Raises ClasslensError where a layer or tensor does not fit.
        """
        state = module.state_dict()
        changes: State = {key: self._fitting(state, key, value.shape, name) for key, value in self.whole.items()}
        changes.update(self.whole)
        for path, layer in self.layers.items():
            if f"{path}.in_proj_weight" in state:  # releases of peft differ in what they add to its output projection
                raise _other_kind(self.folder, f"nn.MultiheadAttention ({path!r})")
            key = f"{path}.weight"
            shape = torch.Size([layer.up.shape[0], *layer.down.shape[1:]])
            changes[key] = layer.added_to(changes.get(key, self._fitting(state, key, shape, name)))
            if layer.bias is not None:
                key = f"{path}.bias"
                bias = changes.get(key, self._fitting(state, key, layer.bias.shape, name))
                changes[key] = bias + (layer.scaling * layer.bias).to(bias.dtype)
        module.load_state_dict(changes, strict=False)
        count = f"{len(self.layers)} layer{'' if len(self.layers) == 1 else 's'}"
        also = f", {len(self.whole)} tensors replaced" if self.whole else ""
        return (f"{self.folder.name}: the adapter is merged into {count} of {name}{also}",)

    def _fitting(self, state: State, key: str, shape: torch.Size, name: str) -> Tensor:
        if key not in state or state[key].shape != shape:
            there = f"has shape {list(state[key].shape)}" if key in state else "does not exist"
            raise ClasslensError(
                f"adapter {str(self.folder)!r} does not fit model {name!r}: it changes {key!r} of shape {list(shape)}, "
                f"which {there} in the model; give the base model that it was trained on"
            )
        return state[key]


def is_adapter(path: Path) -> bool:
    """Whether a folder holds an adapter of peft."""
    return (path / _CONFIG).is_file()


def read_lora(folder: Path) -> Lora:
    """The adapter in a folder.

    Raises ClasslensError for files of another form, and for adapters of another kind than LoRA, rsLoRA and DoRA.
    """
    config, state = _config(folder), _state(folder)
    parts: dict[str, dict[str, Tensor]] = {}
    whole: State = {}
    for key, value in state.items():
        key = key.removeprefix("base_model.model.")
        name = re.sub(r"\.(base_layer|modules_to_save\.default|modules_to_save|default)(?=\.|$)", "", key)
        match = _PARTS.fullmatch(name)
        if match is not None:
            parts.setdefault(match[1], {})[match[2]] = value
        elif name == key or (".original_module." not in name and name not in whole):
            whole[name] = value
    whole = {name: value for name, value in whole.items() if ".original_module." not in name}
    layers = {}
    for path, tensors in parts.items():
        down, up = tensors.get("A.weight"), tensors.get("B.weight")
        magnitude = tensors.get("magnitude_vector")
        if down is None or up is None or down.ndim < 2 or up.ndim < 2 or not len(down) or up.shape[1] != len(down):
            raise ClasslensError(
                f"adapter {str(folder)!r} has no lora_A [rank, in] with a lora_B [out, rank] for {path!r}: save it "
                "again with save_pretrained"
            )
        if magnitude is not None and magnitude.numel() != len(up):
            raise ClasslensError(
                f"adapter {str(folder)!r} has a lora_magnitude_vector of {magnitude.numel()} values for {len(up)} rows "
                f"of {path!r}: save it again with save_pretrained"
            )
        alpha = _pattern(config.get("alpha_pattern") or {}, path, config.get("lora_alpha", 8))
        scaling = alpha / (math.sqrt(len(down)) if config.get("use_rslora") else len(down))
        layers[path] = LoraLayer(down, up, scaling, tensors.get("B.bias"), magnitude)
    if not layers and not whole:
        raise ClasslensError(f"adapter {str(folder)!r} holds no tensors: save it again with save_pretrained")
    return Lora(folder, config.get("base_model_name_or_path"), layers, whole, config.get("revision"))


def _config(folder: Path) -> Mapping[str, Any]:
    try:
        config: object = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise TypeError
        patterns = config.get("alpha_pattern") or {}
        for pattern in patterns:
            re.compile(pattern)
        for alpha in (config.get("lora_alpha", 8), *patterns.values()):
            if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
                raise TypeError
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, re.error):
        raise ClasslensError(
            f"adapter {str(folder)!r} has an {_CONFIG} of another form: expected a JSON object, as peft writes it"
        ) from None
    other = next((key for key, value in config.items() if value and key not in _KNOWN), None)
    if config.get("peft_type") != "LORA":
        other = f"peft_type {config.get('peft_type')}"
    if config.get("init_lora_weights", True) not in _PLAIN_STARTS:
        other = f"init_lora_weights {config['init_lora_weights']!r}"
    if config.get("fan_in_fan_out"):
        other = "fan_in_fan_out"
    if other is not None:
        raise _other_kind(folder, other)
    return config


def _other_kind(folder: Path, what: str) -> ClasslensError:
    return ClasslensError(
        f"adapter {str(folder)!r} uses {what}, where classlens merges LoRA, rsLoRA and DoRA of linear layers and "
        f"convolutions: merge it with peft, model = PeftModel.from_pretrained(base, {str(folder)!r}), and give "
        "classlens.load(model, merge_adapters=True)"
    )


def _state(folder: Path) -> State:
    file = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise ClasslensError(f"adapter {str(folder)!r} lacks its weights: expected {_WEIGHTS[0]} beside {_CONFIG}")
    return {str(name): value for name, value in read_tree(file).items() if isinstance(value, Tensor)}


def _pattern(patterns: Mapping[str, float], path: str, default: float) -> float:
    """The value of the first pattern that the end of a path matches."""
    return next((value for key, value in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", path)), default)
