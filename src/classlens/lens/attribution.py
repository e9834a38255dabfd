"""Logit attribution of recorded images as labeled arrays."""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from classlens.explain.attribution import attribute, logit_weights
from classlens.forward.recording import Recording
from classlens.lens.coords import Coordinates, array


def attribution_dataset(
    recording: Recording,
    index: Int[Tensor, " image"],
    coords: Coordinates,
    *,
    against: Int[Tensor, " image"] | None = None,
) -> xr.Dataset:
    """Contribution of each part of the model to the logit of an image's class ``index``; see ``Trace.attribution``."""
    parts = attribute(recording, logit_weights(recording, index, against))
    coords = coords | {"head": np.arange(parts.attention.shape[2])}
    values = {
        "embed": parts.embed,
        "attention": parts.attention.sum(dim=-1) + parts.replaced,
        "mlp": parts.mlp,
        "bias": parts.bias,
        "edit": parts.edit,
        "logit": recorded_logit(recording, index, against),
        "attention_token": parts.attention,
    }
    dims = ("image", "block", "head", "token")
    return xr.Dataset({name: array(part, dims[: part.ndim], coords, name=name) for name, part in values.items()})


def recorded_logit(
    recording: Recording, index: Int[Tensor, " image"], against: Int[Tensor, " image"] | None = None
) -> Float[Tensor, " image"]:
    """The model's own logit of an image's class, or the difference of two."""
    logits = recording.logits.to(recording.dtype).cpu()
    own = logits.gather(1, index[:, None])[:, 0]
    return own if against is None else own - logits.gather(1, against[:, None])[:, 0]
