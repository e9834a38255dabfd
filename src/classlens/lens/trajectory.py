"""The decision trajectory of recorded images: the model's class scores over depth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.depth_facts import DepthFacts, depth_facts
from classlens.core.trajectories import margin
from classlens.explain.class_logits import logit_groups
from classlens.forward.depth_logits import DepthLogits
from classlens.forward.recording import Recording
from classlens.lens.coords import Coordinates, array, image_names, target_coords
from classlens.lens.tuned_lens import TunedLens
from classlens.models.classes import Classes

_DIMS = ("image", "depth", "place")


def recorded_trajectory(
    recording: Recording,
    names: Sequence[str],
    classes: Classes,
    target: Int[Tensor, " image"],
    k: int,
    decoder: TunedLens | None,
) -> xr.Dataset:
    """The trajectory of every image; see ``Trace.trajectory``."""
    recording.view.require_exclusive("a trajectory", "use trace.logits")
    recording.require_same_model()
    k = min(k, len(classes))
    facts = _facts(recording, target, max(k, 2), decoder)
    values = {name: value.cpu().numpy() for name, value in facts._asdict().items()}
    rival_margin = margin(values["top"], values["top_logit"], target.numpy(), values["logit"])
    values |= {name: values[name][..., :k] for name in ("top", "top_logit", "final_logit")}
    values |= {"log_probability": values["logit"] - values["logsumexp"], "margin": rival_margin}
    coords: Coordinates = {"image": image_names(names), **depth_coords(len(recording.view.blocks))}
    coords |= {"place": np.arange(k), **target_coords(classes, target.numpy())}
    class_name = np.array(classes.names, dtype=object)[values["top"]]
    dataset = xr.Dataset({name: array(value, _DIMS[: value.ndim], coords, name=name) for name, value in values.items()})
    return dataset.assign_coords(class_name=(_DIMS, class_name))


def depth_coords(blocks: int) -> Coordinates:
    """``depth``, the number of blocks passed, and ``block``, the last of them: -1 for the embeddings."""
    return {"depth": np.arange(blocks + 1), "block": ("depth", np.arange(-1, blocks))}


def _facts(recording: Recording, target: Int[Tensor, " image"], k: int, decoder: TunedLens | None) -> DepthFacts:
    parts = [
        depth_facts(logits, target[images].to(logits.device), k) for images, logits in depth_logits(recording, decoder)
    ]
    return DepthFacts(*(torch.cat(values) for values in zip(*parts, strict=True)))


def depth_logits(
    recording: Recording, decoder: TunedLens | None = None
) -> Iterator[tuple[slice, Float[Tensor, "image depth category"]]]:
    """``(images, logits)`` at every depth, one group of images after another."""
    view = recording.view
    if decoder is not None:
        view = replace(view, tuned_lens=decoder.projections(view))
    for images in logit_groups(recording):
        depths = DepthLogits(view)
        kept = None if recording.kept is None else recording.kept[images]
        for block, states in recording.walk("resid_pre", images):
            depths.add(block, states, kept)
        yield images, depths.stack(recording.logits[images])
