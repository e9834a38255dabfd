"""Logit attribution of recorded images as labeled arrays."""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Int
from torch import Tensor

from classlens.explain.attribution import attribute
from classlens.forward.recording import Recording
from classlens.lens.coords import Coordinates, array


def attribution_dataset(recording: Recording, index: Int[Tensor, " image"], coords: Coordinates) -> xr.Dataset:
    """Contribution of each part of the model to the logit of an image's class ``index``; see ``Trace.attribution``."""
    parts = attribute(recording, index.to(recording.view.device))
    coords = coords | {"head": np.arange(parts.attention.shape[2])}
    values = {
        "embed": parts.embed,
        "attention": parts.attention.sum(dim=-1) + parts.replaced,
        "mlp": parts.mlp,
        "bias": parts.bias,
        "edit": parts.edit,
        "logit": recording.logits.to(recording.dtype).cpu().gather(1, index[:, None])[:, 0],
        "attention_token": parts.attention,
    }
    dims = ("image", "block", "head", "token")
    return xr.Dataset({name: array(part, dims[: part.ndim], coords, name=name) for name, part in values.items()})
