"""Value vectors as text: the classes of a memory, and the memories of a class."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

from classlens.core.memories import memories, memory_scores
from classlens.errors import ClasslensError
from classlens.forward.agreement import SUBLAYERS, Sublayer
from classlens.lens.lens import Lens
from classlens.lens.target import indices


def memory_classes(lens: Lens, sublayer: Sublayer, block: int, memory: int, *, k: int = 10) -> xr.Dataset:
    """The classes that a memory's value vector scores highest: what it writes when it is used.

        memory_classes(lens, "mlp", 10, memory=4).class_name.values

    Dim ``place``, the best first: ``category``, ``class_name``, ``score`` (``E · value``, with LayerScale, without norm
    weight and bias) and ``cosine`` (-1 to 1). ``sublayer`` is ``attn``, whose memories are the channels of the joined
    heads, or ``mlp``, whose memories are hidden units. Raises ClasslensError for a sublayer, block or memory that the
    model does not have. Source: paper, section 5.
    """
    check_memory(lens, sublayer, block, k, memory=memory)
    space, output = lens.view.space, getattr(lens.view.blocks[block], sublayer)
    place = torch.tensor([memory], device=space.embedding.device)
    scores, cosines = memory_scores(space.embedding, output, slice(None), place)
    found = scores.topk(min(k, len(scores))).indices
    names = np.array([lens.classes.names[index] for index in found.tolist()], dtype=object)
    return xr.Dataset(
        {
            "category": ("place", found.cpu().numpy()),
            "class_name": ("place", names),
            "score": ("place", scores[found].cpu().numpy()),
            "cosine": ("place", cosines[found].cpu().numpy()),
        },
        attrs={"model": lens.view.name, "sublayer": sublayer, "block": block, "memory": memory},
    )


def class_memories(
    lens: Lens, sublayer: Sublayer, block: int, category: int | str | None = None, *, k: int = 10
) -> xr.Dataset:
    """The memories whose value vectors score a class highest; for None those closest to their own.

        class_memories(lens, "mlp", 10, "beagle").memory.values

    Dim ``place``, the best first: ``memory``, ``category`` and ``class_name`` (of the class that was asked for; for
    None, of the class that the memory scores highest), ``score`` and ``cosine`` as in ``memory_classes``, and ``top``,
    the name of the class that the memory scores highest. Of a class, memories are ordered by score; for None, by
    cosine. Raises ClasslensError as ``memory_classes`` does, and for an unknown class.
    """
    check_memory(lens, sublayer, block, k)
    space, output = lens.view.space, getattr(lens.view.blocks[block], sublayer)
    top = memories(space.embedding, output).by_value[:, 0]
    classes = top if category is None else torch.full_like(top, int(indices(lens.classes, category, 1)[0]))
    scores, cosines = memory_scores(space.embedding, output, classes, slice(None))
    found = (cosines if category is None else scores).topk(min(k, len(scores))).indices
    names = lens.classes.names
    return xr.Dataset(
        {
            "memory": ("place", found.cpu().numpy()),
            "category": ("place", classes[found].cpu().numpy()),
            "class_name": ("place", np.array([names[one] for one in classes[found].tolist()], dtype=object)),
            "score": ("place", scores[found].cpu().numpy()),
            "cosine": ("place", cosines[found].cpu().numpy()),
            "top": ("place", np.array([names[one] for one in top[found].tolist()], dtype=object)),
        },
        attrs={"model": lens.view.name, "sublayer": sublayer, "block": block},
    )


def check_memory(lens: Lens, sublayer: str, block: int, k: int, *, memory: int | None = None) -> None:
    """Raises ClasslensError for what the model does not have."""
    blocks = len(lens.view.blocks)
    if sublayer not in SUBLAYERS:
        raise ClasslensError(f"sublayer {sublayer!r} is not known: give attn or mlp")
    if not 0 <= block < blocks:
        raise ClasslensError(
            f"block {block} is not there: model {lens.view.name!r} has blocks 0 to {blocks - 1}, counted from 0"
        )
    if k < 1:
        raise ClasslensError(f"{k} places were asked for: give 1 or more")
    count = getattr(lens.view.blocks[block], sublayer).weight.shape[1]
    if memory is not None and not 0 <= memory < count:
        kind = "channels" if sublayer == "attn" else "hidden units"
        raise ClasslensError(
            f"memory {memory} is not there: block {block} of model {lens.view.name!r} has {count} memories "
            f"({kind}) in {sublayer}, counted from 0"
        )
