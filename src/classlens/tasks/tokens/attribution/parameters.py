"""Facts of an atlas that depend on the weights alone: classes of value vectors, and maps of heads between classes."""

from __future__ import annotations

import numpy as np
import torch

from classlens.core.arrays import Array
from classlens.core.attention import Output
from classlens.core.memories import STRONGEST, memories, memory_scores
from classlens.errors import ClasslensError
from classlens.lens.directions import Directions
from classlens.lens.head_maps import block_maps
from classlens.models.view import ModelView
from classlens.store.store import Store
from classlens.tasks.tokens.attribution.schema import HEAD_MAPS, AttributionAxes

_PAIRS = 20
"""Entries of the map of a head that are kept."""
_MAX_MAPPED = 5000
"""Classes of a model beyond which maps of all heads take minutes."""


def value_classes(view: ModelView, axes: AttributionAxes, directions: Directions | None) -> dict[str, Array]:
    """Classes that the value vector of each unit scores highest, with scores and cosines; -1 and NaN for no unit.

    ``directions`` take the place of the value vectors of their block, and other blocks have none.
    """
    count = min(STRONGEST, view.num_classes)
    shape = (axes.blocks, axes.units, count)
    classes = np.full(shape, -1, dtype=np.int32)
    scores, cosines = np.full(shape, np.nan, dtype=np.float32), np.full(shape, np.nan, dtype=np.float32)
    embedding = view.space.embedding
    outputs = {block: view.blocks[block].mlp for block in range(axes.blocks)}
    if directions is not None:
        outputs = {directions.block: Output(directions.directions.T.to(embedding.device, embedding.dtype))}
    for block, output in outputs.items():
        best = memories(embedding, output).by_value[:, :count]
        units = torch.arange(len(best), device=best.device).repeat_interleave(count)
        score, cosine = memory_scores(embedding, output, best.flatten(), units)
        for array, values in ((classes, best), (scores, score), (cosines, cosine)):
            array[block, : len(best)] = values.reshape(best.shape).cpu().numpy()
    return {"value_class": classes, "value_score": scores, "value_cosine": cosines}


def write_head_maps(store: Store, view: ModelView, axes: AttributionAxes) -> None:
    """Write the maps of all heads between classes, unless values are no linear map or the classes are many."""
    if store.has_group(HEAD_MAPS) or view.num_classes > _MAX_MAPPED:
        return
    pairs = min(_PAIRS, view.num_classes**2)
    classes = np.full((2, axes.blocks, axes.heads, pairs), -1, dtype=np.int32)
    scores = np.full(classes.shape[1:], np.nan, dtype=np.float32)
    shares = np.full(scores.shape[:2], np.nan, dtype=np.float32)
    for block in range(axes.blocks):
        try:
            maps = block_maps(view, block, pairs)
        except ClasslensError:  # values of this block are no linear map
            continue
        for head, each in enumerate(maps):
            classes[0, block, head], classes[1, block, head] = each.input_class.cpu(), each.output_class.cpu()
            scores[block, head], shares[block, head] = each.score.cpu(), each.copy_share
    dims = ("block", "head", "pair")
    data = {
        "input_class": (dims, classes[0]),
        "output_class": (dims, classes[1]),
        "score": (dims, scores),
        "copy_share": (dims[:2], shares),
    }
    sizes = {"block": axes.blocks, "head": axes.heads, "pair": pairs}
    store.write_group(HEAD_MAPS, data, {name: (name, np.arange(size)) for name, size in sizes.items()})
