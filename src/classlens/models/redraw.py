"""Random heads with logits of ordinary size."""

from __future__ import annotations

import torch

from classlens.models.view import ModelView


def redraw_heads(view: ModelView, *, seed: int = 0) -> None:
    """Redraw the rows of every head in place, so that class logits are of order 3.

    Libraries initialize a head at or near zero, where every logit ties and an error of the class space stays hidden.
    A class embedding that is not a parameter of the model (text embeddings) stays as it is.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in view.module.parameters()}
    with torch.no_grad():
        for readout in view.readouts:
            weight = readout.space.weight
            if weight.untyped_storage().data_ptr() in parameters:
                drawn = torch.randn(weight.shape, generator=generator) * 3 / weight.shape[1] ** 0.5
                weight.copy_(drawn)
