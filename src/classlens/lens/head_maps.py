"""The map of a head between classes: which class it writes where it attends to another."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import xarray as xr

from classlens.core import head_maps
from classlens.core.arguments import AtLeast1, checked, whole_number
from classlens.core.memories import embedding_and_values
from classlens.forward.isolation import isolated
from classlens.forward.value_weights import value_weights
from classlens.lens.lens import Lens
from classlens.models.view import ModelView


def block_maps(view: ModelView, block: int, k: int, heads: Iterable[int] | None = None) -> list[head_maps.HeadMap]:
    """The maps of some heads of a block, or of all."""
    embedding, output = embedding_and_values(view.space.embedding, view.blocks[block].attn)
    maps = []
    values = value_weights(view, block).to(embedding.dtype)
    for head in range(len(values)) if heads is None else heads:
        columns = slice(head * values.shape[1], (head + 1) * values.shape[1])
        maps.append(head_maps.head_map(embedding, values[head], output[:, columns], k))
    return maps


@isolated
@checked
def head_map(lens: Lens, block: int, head: int, *, k: AtLeast1 = 20) -> xr.Dataset:
    """The strongest entries of a head's value-output map between classes, from parameters alone.

    The entry of two classes is ``e_in W_V W_O e_outᵀ``, with rows ``e`` of the class embedding: the score of the second
    class in what the head writes where it attends to a token that is the row of the first. LayerScale is within
    ``W_O``; norms are left out. Source: Dar et al., *Analyzing Transformers in Embedding Space*, ACL 2023.

    Args:
        lens: the model.
        block: from 0.
        head: from 0.
        k: number of pairs of classes, the largest entries; all of a model that has fewer.

    Returns:
        Dim ``place``, the largest first, ties by class: ``input_class`` and ``output_class``, with ``input_name`` and
        ``output_name``, and ``score``. Attribute ``copy_share``: the share of classes that score highest in their own
        row, which the head copies.

    Raises:
        ClasslensError: a block or head that the model does not have, or values that are no linear map of the tokens.

    Examples:
        >>> import classlens
        >>> lens = classlens.load("builtin:cifar10")
        >>> pairs = classlens.head_map(lens, block=5, head=0, k=3)
        >>> pairs.input_name.shape, 0 <= pairs.attrs["copy_share"] <= 1
        ((3,), True)
    """
    lens._check_model()
    view, model = lens.view, f" of model {lens.view.name!r}"
    block = whole_number("block", block, 0, len(view.blocks) - 1, hint=model)
    head = whole_number("head", head, 0, view.blocks[block].heads - 1, hint=f" in block {block}{model}")
    (largest,) = block_maps(view, block, k, heads=[head])
    names = np.array(lens.classes.names, dtype=object)
    pairs = torch.stack([largest.input_class, largest.output_class]).cpu().numpy()
    values = {
        "input_class": pairs[0],
        "input_name": names[pairs[0]],
        "output_class": pairs[1],
        "output_name": names[pairs[1]],
        "score": largest.score.cpu().numpy(),
    }
    attrs = {"model": view.name, "block": block, "head": head, "copy_share": largest.copy_share}
    return xr.Dataset({name: ("place", column) for name, column in values.items()}, attrs=attrs)
