"""A digest that identifies the weights of a model."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from classlens.models.view import ModelView


def weights_digest(view: ModelView) -> str:
    """SHA-256 of all parameters, buffers and class embeddings of a model."""
    digest = hashlib.sha256()
    # A state dict leaves out buffers that are not persistent.
    tensors: dict[str, object] = {**view.module.state_dict(), **dict(view.module.named_buffers())}
    for number, readout in enumerate(view.readouts):
        tensors[f"readout {number}"] = readout.space.weight
        tensors[f"readout {number} bias"] = readout.space.bias
    for name, value in sorted(tensors.items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
