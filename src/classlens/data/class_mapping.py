"""The classes of a data set among the classes of a model."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from timm.data import ImageNetInfo, infer_imagenet_subset

from classlens.data.dataset import ClassName, Dataset
from classlens.errors import ClasslensError
from classlens.models.classes import Classes
from classlens.store.schema import Array

_PLACEHOLDER = re.compile(r"class \d+")


def map_classes(dataset: Dataset, classes: Classes, *, model_name: str) -> Array:
    """The model's class of each image, -1 where it has no label.

    map_classes(dataset, lens.classes, model_name=lens.view.name)

    Classes that occur in the data are found by wnid where the model's classes are ImageNet's, else by name (whole, or
    one of the synonyms between commas), else by index: classes named by numbers, or as many as the model has where its
    own names are not known. All in one way or none: raises ClasslensError that shows the first five of each.
    """
    if not dataset.classes:
        return np.full(len(dataset), -1, dtype=np.int64)
    used = np.unique(dataset.labels[dataset.labels >= 0])
    kinds = [dataset.classes[label] for label in used]
    found = _by_wnid(kinds, classes) or _by_name(kinds, classes) or _by_index(kinds, dataset, classes, used.tolist())
    if found is None or len(set(found)) < len(found):
        theirs = ", ".join(_told(kind) for kind in kinds[:5])
        own = ", ".join(repr(name) for name in classes.names[:5])
        raise ClasslensError(
            f"the classes of data {dataset.spec!r} are not among those of model {model_name!r}: the data has {theirs}"
            f"{' …' if len(kinds) > 5 else ''}, the model {own}{' …' if len(classes) > 5 else ''}; name the model's "
            "classes as the data does (class_names=, --classes FILE), or give a model for these"
        )
    table = np.full(len(dataset.classes), -1, dtype=np.int64)
    table[used] = found
    matched: Array = np.where(dataset.labels >= 0, table[dataset.labels], -1)
    return matched


def _told(kind: ClassName) -> str:
    return repr(kind.name) if kind.wnid in (None, kind.name) else f"{kind.name!r} ({kind.wnid})"


def _by_wnid(kinds: Sequence[ClassName], classes: Classes) -> list[int] | None:
    if any(kind.wnid is None for kind in kinds):
        return None
    subset = infer_imagenet_subset({"num_classes": len(classes)})
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    if not _are_imagenet(classes, [info.index_to_description(index) for index in range(len(classes))]):
        return None
    place = {info.index_to_label_name(index): index for index in range(len(classes))}
    found = [place.get(str(kind.wnid)) for kind in kinds]
    return None if None in found else [index for index in found if index is not None]


def _are_imagenet(classes: Classes, descriptions: Sequence[str]) -> bool:
    """Whether the model's classes are ImageNet's: libraries differ in some of the names, but not in many."""
    if all(_PLACEHOLDER.fullmatch(name) for name in classes.names):
        return True
    same = sum(_plain(own) == _plain(theirs) for own, theirs in zip(classes.names, descriptions, strict=True))
    return same > 0.8 * len(classes)


def _plain(name: str) -> str:
    """The first of several synonyms, without the differences that writing makes."""
    return re.sub(r"[\W_]+", " ", name.partition(",")[0]).strip().lower()


def _by_name(kinds: Sequence[ClassName], classes: Classes) -> list[int] | None:
    found = []
    for kind in kinds:
        if kind.name.strip().isdecimal():
            return None
        for spelling in (kind.name, kind.name.replace("_", " "), kind.name.partition(",")[0]):
            try:
                found.append(classes.index(spelling))
                break
            except ClasslensError:
                continue
        else:
            return None
    return found


def _by_index(kinds: Sequence[ClassName], dataset: Dataset, classes: Classes, used: list[int]) -> list[int] | None:
    if all(kind.name.strip().isdecimal() and int(kind.name) < len(classes) for kind in kinds):
        return [int(kind.name) for kind in kinds]
    unnamed = all(_PLACEHOLDER.fullmatch(name) for name in classes.names)
    return used if unnamed and len(dataset.classes) == len(classes) else None
