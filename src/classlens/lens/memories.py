"""Value vectors as text: the classes that a memory writes, and the memories that write a class."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from classlens.core.arguments import AtLeast1, checked, whole_number
from classlens.core.attention import Output
from classlens.core.memories import memories, memory_scores
from classlens.forward.agreement import Sublayer
from classlens.lens.lens import Lens
from classlens.lens.target import Class, class_indices


@checked
def memory_classes(lens: Lens, sublayer: Sublayer, block: int, unit: int, *, k: AtLeast1 = 10) -> xr.Dataset:
    """The classes that the value vector of a memory scores highest.

    Source: Vilas, Schaumlöffel and Roig, NeurIPS 2023, section 5.

    Args:
        lens: the model.
        sublayer: ``attn``, whose memories are the channels of the joined heads, or ``mlp``, whose memories are the
            hidden units.
        block: from 0.
        unit: number of the memory in the sublayer, from 0.
        k: number of classes.

    Returns:
        Dim ``place``, the best first: ``category``, ``class_name``, ``score`` (``E · value``, with LayerScale, without
        norm weight and bias) and ``cosine`` (-1 to 1).

    Raises:
        ClasslensError: a sublayer, block or unit that the model does not have.

    Examples:
        >>> import classlens
        >>> lens = classlens.load("builtin:cifar10")
        >>> memory_classes(lens, "mlp", 5, unit=4, k=3).sizes["place"]
        3
    """
    _check(lens, sublayer, block, unit=unit)
    output = getattr(lens.view.blocks[block], sublayer)
    return value_classes(lens, {"sublayer": sublayer, "block": block, "unit": unit}, output, unit, k)


def value_classes(lens: Lens, attrs: dict[str, object], output: Output, unit: int, k: int) -> xr.Dataset:
    """The classes that a column of an output projection scores highest, with the model's name among ``attrs``."""
    embedding = lens.view.space.embedding
    scores, cosines = memory_scores(embedding, output, slice(None), torch.tensor([unit], device=embedding.device))
    best = scores.topk(min(k, len(scores))).indices
    attrs = {"model": lens.view.name, **attrs}
    return ranked_classes(lens, attrs, best, score=scores[best], cosine=cosines[best])


@checked
def class_memories(
    lens: Lens, sublayer: Sublayer, block: int, category: Class | None = None, *, k: AtLeast1 = 10
) -> xr.Dataset:
    """The memories whose value vectors score a class highest, or those closest to the class that they score highest.

    Args:
        lens: the model.
        sublayer: as for ``memory_classes``.
        block: from 0.
        category: name or index of a class, whose memories are ordered by score. None: each memory is compared with the
            class that it scores highest, and memories are ordered by cosine.
        k: number of memories.

    Returns:
        Dim ``place``, the best first: ``unit``, ``category`` and ``class_name`` of the compared class, ``score`` and
        ``cosine`` as in ``memory_classes``, and ``top``, the name of the class that the memory scores highest.

    Raises:
        ClasslensError: a sublayer, block or class that the model does not have.

    Examples:
        >>> import classlens
        >>> lens = classlens.load("builtin:cifar10")
        >>> class_memories(lens, "mlp", 5, "cat", k=3).unit.shape
        (3,)
    """
    _check(lens, sublayer, block)
    space, output = lens.view.space, getattr(lens.view.blocks[block], sublayer)
    top = memories(space.embedding, output).by_value[:, 0]
    classes = top if category is None else torch.full_like(top, int(class_indices(lens.classes, category, 1)[0]))
    scores, cosines = memory_scores(space.embedding, output, classes, slice(None))
    best = (cosines if category is None else scores).topk(min(k, len(scores))).indices
    return _dataset(
        {"model": lens.view.name, "sublayer": sublayer, "block": block},
        unit=best,
        category=classes[best],
        class_name=_names(lens, classes[best]),
        score=scores[best],
        cosine=cosines[best],
        top=_names(lens, top[best]),
    )


def ranked_classes(lens: Lens, attrs: dict[str, object], classes: Tensor, **columns: Tensor) -> xr.Dataset:
    """Classes by ``place``, the best first, with further columns."""
    return _dataset(attrs, category=classes, class_name=_names(lens, classes), **columns)


def _names(lens: Lens, classes: Tensor) -> NDArray[np.object_]:
    return np.array([lens.classes.names[index] for index in classes.tolist()], dtype=object)


def _dataset(attrs: dict[str, object], **columns: Tensor | NDArray[np.object_]) -> xr.Dataset:
    values = {name: column.cpu().numpy() if isinstance(column, Tensor) else column for name, column in columns.items()}
    return xr.Dataset({name: ("place", column) for name, column in values.items()}, attrs=attrs)


def _check(lens: Lens, sublayer: str, block: int, *, unit: int | None = None) -> None:
    """Raises ClasslensError for a block or unit that the model does not have."""
    lens._check_model()
    model = f" of model {lens.view.name!r}"
    whole_number("block", block, 0, len(lens.view.blocks) - 1, hint=model)
    if unit is not None:
        count = getattr(lens.view.blocks[block], sublayer).weight.shape[1]
        whole_number("unit", unit, 0, count - 1, hint=f" in {sublayer}{model}")
