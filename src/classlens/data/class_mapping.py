"""Mapping of the classes of a data set to the classes of a model."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from classlens.core.arrays import Array
from classlens.data.dataset import ClassName, Dataset
from classlens.errors import ClasslensError
from classlens.models.binary import NAMES
from classlens.models.class_spelling import PLACEHOLDER, index_of_spelling, indices_by_wnid
from classlens.models.classes import Classes

logger = logging.getLogger("classlens")


def map_classes(dataset: Dataset, classes: Classes, *, model_name: str) -> Array:
    """The model's class of each image; -1 for an image without a label.

    The classes of the images are matched by wnid where the model's classes are ImageNet's, else by name (whole, or one
    of the synonyms between commas; a wnid has those of ImageNet-1k), else by index: classes named by numbers that no
    class of the model has as a name, or a data set with as many classes as a model without class names. All classes are
    matched in the same way. Raises ClasslensError, with the first five classes of each side, where none of the ways
    matches them all.
    """
    if not dataset.classes:
        return np.full(len(dataset), -1, dtype=np.int64)
    used = np.unique(dataset.labels[dataset.labels >= 0])
    names = [dataset.classes[label] for label in used]
    indices = _by_wnid(names, classes) or _by_name(names, classes)
    indices = indices or _by_index(names, dataset, classes, used.tolist())
    if indices is None or len(set(indices)) < len(indices):
        data_names = ", ".join(_shown(name) for name in names[:5])
        model_names = ", ".join(repr(name) for name in classes.names[:5])
        raise ClasslensError(
            f"the classes of data {dataset.spec!r} are not among those of model {model_name!r}: the data has "
            f"{data_names}{' …' if len(names) > 5 else ''}, the model "
            f"{model_names}{' …' if len(classes) > 5 else ''}; name the model's "
            "classes as the data does (class_names=, --classes FILE), or give a model for these"
        )
    table = np.full(len(dataset.classes), -1, dtype=np.int64)
    table[used] = indices
    mapped: Array = np.where(dataset.labels >= 0, table[dataset.labels], -1)
    return mapped


def _shown(name: ClassName) -> str:
    return repr(name.name) if name.wnid in (None, name.name) else f"{name.name!r} ({name.wnid})"


def _by_wnid(names: Sequence[ClassName], classes: Classes) -> list[int] | None:
    if any(name.wnid is None for name in names):
        return None
    index_of = indices_by_wnid(classes)
    indices = [index_of.get(str(name.wnid)) for name in names]
    return None if None in indices else [index for index in indices if index is not None]


def _by_name(names: Sequence[ClassName], classes: Classes) -> list[int] | None:
    indices = []
    for name in names:
        index = index_of_spelling(name.name, name.wnid, classes)
        if index is None:
            return None
        indices.append(index)
    return indices


def _by_index(names: Sequence[ClassName], dataset: Dataset, classes: Classes, used: list[int]) -> list[int] | None:
    if all(name.name.strip().isdecimal() and int(name.name) < len(classes) for name in names):
        # Some of the numbers are names of classes: neither reading holds for all.
        return None if any(classes.of_name(name.name) for name in names) else [int(name.name) for name in names]
    nameless = classes.names == NAMES or all(PLACEHOLDER.fullmatch(text) for text in classes.names)
    if len(dataset.classes) != len(classes) or not nameless:
        return None
    logger.warning(
        "The model's classes have no names: they are taken in the order of data %r, from %s to %s. Name them "
        "(class_names=, --classes FILE) if the model was trained in another order.",
        dataset.spec,
        _shown(dataset.classes[0]),
        _shown(dataset.classes[-1]),
    )
    return used
