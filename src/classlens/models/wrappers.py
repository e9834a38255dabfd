"""Modules around a model: those that are taken off, and what is said of others and of models without values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter, methodcaller

import torch
from torch import nn

from classlens.errors import ClasslensError

# The model within, by the class that torch or peft puts around it.
_AROUND: Mapping[str, Callable[[nn.Module], nn.Module]] = {
    "DataParallel": attrgetter("module"),
    "DistributedDataParallel": attrgetter("module"),
    "AveragedModel": attrgetter("module"),
    "OptimizedModule": attrgetter("_orig_mod"),
    "PeftModel": methodcaller("get_base_model"),  # adapters are within its layers, and found there
}
_REFUSED: Mapping[str, str] = {
    "FullyShardedDataParallel": "has its parameters in shards: gather its state dict, and load it into a plain model",
    "ScriptModule": "is a TorchScript program, whose blocks cannot be watched: make the model with its library, and "
    "load its state_dict() into it",
    "GraphModule": "is a graph of operations without the blocks of the model, as torch.fx, torch.export and "
    "quantization make it: give the model from before",
}


def without_wrappers(module: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """A model without the modules that torch and peft put around it, and what is said about them.

    Raises ClasslensError for a wrapper within which the model cannot be read, with the way out.
    """
    wrappers: list[str] = []
    while (name := _kind(module, _AROUND)) is not None:
        wrappers.append(name)
        module = _AROUND[name](module)
    refused = _kind(module, _REFUSED)
    if refused is not None:
        raise ClasslensError(f"model {type(module).__name__!r} {_REFUSED[refused]}")
    return module, (f"{' and '.join(wrappers)} around the model taken off",) if wrappers else ()


def require_values(module: nn.Module, name: str) -> None:
    """Raises ClasslensError for a model of which a parameter or buffer has a shape, but no values."""
    for key, value in module.state_dict(keep_vars=True).items():
        if isinstance(value, torch.Tensor) and value.is_meta:
            raise ClasslensError(
                f"model {name!r} has no values in {key!r}, which lies on the meta device: make the model outside of "
                'torch.device("meta") and torch.set_default_device("meta"), or load its weights first'
            )


def _kind(module: nn.Module, names: Mapping[str, object]) -> str | None:
    """The name among ``names`` of the module's class or of a base class."""
    return next((base.__name__ for base in type(module).__mro__ if base.__name__ in names), None)
