"""Layers whose weights are not simply their parameters: adapters, weights computed by hooks, quantized layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from classlens.errors import ClasslensError
from classlens.models.torch_layers import taken_part

# Forward pre-hooks of torch that compute a weight; parametrizations compute it whenever it is read.
_COMPUTING_HOOKS = (WeightNorm, SpectralNorm, BasePruningMethod)
_QUANTIZED = ("torch.ao.nn.", "torch.nn.quantized", "torch.nn.intrinsic")
_MERGE = "merge its adapters first, model = model.merge_and_unload(), or give load(…, merge_adapters=True)"


def adapter_layers(module: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """``(parent, name, layer)`` of every layer of peft or loralib: layers that know whether they are merged."""
    for parent in module.modules():
        for name, layer in parent.named_children():
            if isinstance(getattr(layer, "merged", None), bool):
                yield parent, name, layer


def merge_first(module: nn.Module) -> str | None:
    """The remedy for a model whose layers have adapters; None for one without."""
    return _MERGE if next(adapter_layers(module), None) else None


def merged_copy(module: nn.Module) -> nn.Module:
    """A copy in which adapters are added to the weights that they adapt, with plain layers in their place."""
    if any(getattr(layer, "disable_adapters", False) for _, _, layer in adapter_layers(module)):
        raise ClasslensError(
            f"the adapters of model {type(module).__name__!r} are disabled, so there is nothing to merge: enable them, "
            "or take them off with model = model.unload()"
        )
    merged: Any = deepcopy(module)
    for path, part in list(merged.named_modules()):  # also a PeftModel within DataParallel or a module of one's own
        if callable(getattr(part, "merge_and_unload", None)):
            plain = part.merge_and_unload()
            if not path:
                merged = plain
            else:
                merged.set_submodule(path, plain)
            break
    for parent in merged.modules():
        for name, layer in parent.named_children():
            setattr(parent, name, taken_part(layer))
    for parent, name, layer in list(adapter_layers(merged)):
        if callable(getattr(layer, "get_base_layer", None)):  # peft
            layer.merge()
            setattr(parent, name, layer.get_base_layer())
            continue
        layer.merge_weights = True  # loralib merges on the way to evaluation mode
        layer.train(False)
        if isinstance(layer, nn.Linear):
            plain = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
            plain.weight, plain.bias = layer.weight, layer.bias
            setattr(parent, name, plain)
    return merged  # type: ignore[no-any-return]


@contextmanager
def evaluated_weights(module: nn.Module) -> Iterator[None]:
    """Weights as evaluation mode has them: reading one does not change buffers, and none is of an earlier step."""
    flags = [(part, part.training) for part in module.modules()]
    try:
        for part, _ in flags:
            part.training = False
        with torch.no_grad():
            for part, _ in flags:
                for hook in part._forward_pre_hooks.values():
                    if isinstance(hook, _COMPUTING_HOOKS):
                        hook(part, ())
        yield
    finally:
        for part, training in flags:
            part.training = training


def check_floating(module: nn.Module, name: str) -> None:
    """Raises ClasslensError for weights that are not floating-point numbers in a plain tensor."""
    for path, part in module.named_modules():
        kinds = {
            parameter: type(tensor).__name__ if tensor.is_floating_point() else str(tensor.dtype)
            for parameter, tensor in part._parameters.items()
            if tensor is not None and (type(tensor) not in (Tensor, nn.Parameter) or not tensor.is_floating_point())
        }
        if kinds or type(part).__module__.startswith(_QUANTIZED):
            what = next((f"{key} of type {kind}" for key, kind in kinds.items()), type(part).__name__)
            raise ClasslensError(
                f"model {name!r} is quantized or sharded (layer {path!r} has {what}): classlens reads weights as plain "
                "floating-point tensors; load the model without quantization"
            )
