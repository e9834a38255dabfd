"""The random twin of a model: the same architecture as its library initializes it, from a recorded seed.

Two parts follow the trained model, since the library's initialization would make a twin that says nothing: LayerScale,
and a classifier head that is all zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from classlens.errors import ClasslensError
from classlens.lens.lens import Lens
from classlens.models.adapter import adapter_of_name
from classlens.models.load import load_model
from classlens.models.view import ModelView

# Options that describe trained weights.
_TRAINED = ("checkpoint", "pretrained")


def random_twin(model: str | Path | nn.Module | ModelView, lens: Lens, options: Mapping[str, Any], seed: int) -> Lens:
    """The twin of ``lens``, which was loaded as ``model`` with ``options``.

    Raises ClasslensError for a model that no library creates by name: a module, or a user's own file.
    """
    name = str(model) if isinstance(model, str | Path) else lens.view.name
    if not isinstance(model, str | Path) or lens.view.library == "own" or ".py:" in name:
        raise ClasslensError(
            f"model {name!r} has no random twin, as no library creates it by name: give a model name, or leave out "
            "the condition random_init"
        )
    twin_options = {**lens.told_options, **{key: value for key, value in options.items() if key not in _TRAINED}}
    # One binary logit is read as two classes.
    rows = 1 if options.get("multi_label") and lens.view.exclusive else lens.view.num_classes
    if options.get("head") is None and adapter_of_name(name).takes_num_classes:
        twin_options["num_classes"] = rows
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed accelerators, too, for good
        if options.get("head") is not None:
            width = sum(readout.space.weight.shape[1] for readout in lens.view.readouts)
            twin_options["head"] = nn.Linear(width, rows)
        loaded = load_model(model, pretrained=False, **twin_options)
    redraw_layer_scale(loaded.view, lens.view, seed)
    redraw_zero_heads(loaded.view, seed)
    return Lens(loaded)


def redraw_layer_scale(view: ModelView, trained: ModelView, seed: int) -> None:
    """Set each LayerScale to the values of the trained model in a random order.

    Libraries start LayerScale near zero (1e-5), so that blocks of a twin would add nothing, and every token would keep
    the ranks of its embedding.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in view.module.parameters()}
    for block, trained_block in zip(view.blocks, trained.blocks, strict=True):
        for output, trained_output in ((block.attn, trained_block.attn), (block.mlp, trained_block.mlp)):
            scale, values = output.scale, trained_output.scale
            if scale is None or values is None or scale.untyped_storage().data_ptr() not in parameters:
                continue
            with torch.no_grad():
                scale.copy_(values.flatten()[torch.randperm(values.numel(), generator=generator)].view_as(scale))


def redraw_zero_heads(view: ModelView, seed: int) -> None:
    """Redraw a class embedding that is all zeros, for which every logit ties, from a truncated normal of std 0.02."""
    generator = torch.Generator().manual_seed(seed)
    for readout in view.readouts:
        weight = readout.space.weight
        if not bool(weight.any()):
            drawn = torch.empty(weight.shape)
            nn.init.trunc_normal_(drawn, std=0.02, generator=generator)
            with torch.no_grad():
                weight.copy_(drawn)
