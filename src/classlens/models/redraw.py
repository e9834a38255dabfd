"""Random weights that hide nothing."""

from __future__ import annotations

import torch

from classlens.models.view import ModelView


def redraw_heads(view: ModelView, *, seed: int = 0) -> None:
    """Draw the rows of every head anew, so that class logits come out of order 3, in place.

    Libraries start a head at zero or near it, where every logit ties and no error of a class space can show. A class
    embedding that is no parameter of the model (text embeddings) stays as it is.
    """
    generator = torch.Generator().manual_seed(seed)
    own = {parameter.untyped_storage().data_ptr() for parameter in view.module.parameters()}
    with torch.no_grad():
        for readout in view.readouts:
            weight = readout.space.weight
            if weight.untyped_storage().data_ptr() in own:
                drawn = torch.randn(weight.shape, generator=generator) * 3 / weight.shape[1] ** 0.5
                weight.copy_(drawn)
