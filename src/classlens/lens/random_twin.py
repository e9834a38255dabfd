"""The random twin of a model: the same architecture as its library initializes it, from a recorded seed."""

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

# What belongs to the trained weights alone.
_TRAINED = ("checkpoint", "pretrained")


def random_twin(model: str | Path | nn.Module | ModelView, lens: Lens, options: Mapping[str, Any], seed: int) -> Lens:
    """The twin of ``lens``, which was loaded as ``model`` with ``options``.

    A head that comes out all zeros, for which every logit would tie, is redrawn (see ``redraw_zero_heads``). Raises
    ClasslensError for a model that no library makes anew: a module, or a user's own file.
    """
    name = str(model) if isinstance(model, str | Path) else lens.view.name
    if not isinstance(model, str | Path) or lens.view.library == "own" or ".py:" in name:
        raise ClasslensError(
            f"model {name!r} has no random twin, as no library makes it anew by its name: give a model name, or "
            "leave out the condition random_init"
        )
    chosen = {key: value for key, value in options.items() if key not in _TRAINED}
    rows = lens.view.num_classes
    if options.get("head") is None and adapter_of_name(name).takes_num_classes:
        chosen["num_classes"] = rows
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if options.get("head") is not None:
            chosen["head"] = nn.Linear(sum(readout.space.weight.shape[1] for readout in lens.view.readouts), rows)
        loaded = load_model(model, pretrained=False, **chosen)
    redraw_zero_heads(loaded.view, seed)
    return Lens(loaded)


def redraw_zero_heads(view: ModelView, seed: int) -> None:
    """Draw a class embedding that is all zeros anew, from a truncated normal of standard deviation 0.02, in place."""
    generator = torch.Generator().manual_seed(seed)
    for readout in view.readouts:
        weight = readout.space.weight
        if not bool(weight.any()):
            drawn = torch.empty(weight.shape)
            nn.init.trunc_normal_(drawn, std=0.02, generator=generator)
            with torch.no_grad():
                weight.copy_(drawn)
