"""A digest that tells the weights of one model from those of another."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from classlens.models.view import ModelView


def weights_digest(view: ModelView) -> str:
    """Of every parameter and buffer of a model, and of class embeddings that are none of them."""
    digest = hashlib.sha256()
    # Buffers by name as well: a state dict leaves out those that are not persistent.
    tensors: dict[str, object] = {**view.module.state_dict(), **dict(view.module.named_buffers())}
    for number, readout in enumerate(view.readouts):
        tensors[f"readout {number}"] = readout.space.weight
        tensors[f"readout {number} bias"] = readout.space.bias
    for name, value in sorted(tensors.items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
