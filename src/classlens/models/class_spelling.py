"""Classes of a model by what others call them: WordNet ids (wnids) of ImageNet, and usual spellings of a name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache

from timm.data import ImageNetInfo, infer_imagenet_subset

from classlens.models.classes import Classes

PLACEHOLDER = re.compile(r"class \d+")
"""Names of classes that have none."""


def indices_by_wnid(classes: Classes) -> Mapping[str, int]:
    """The class of each wnid; empty where the model's classes are not those of ImageNet."""
    subset = infer_imagenet_subset({"num_classes": len(classes)})
    if subset is None:
        return {}
    info = ImageNetInfo(subset)
    if not _are_imagenet(classes, [info.index_to_description(index) for index in range(len(classes))]):
        return {}
    return {info.index_to_label_name(index): index for index in range(len(classes))}


def index_of_spelling(name: str, wnid: str | None, classes: Classes) -> int | None:
    """The one class of a name, with or without underscores, of its first synonym, or of a synonym of the wnid."""
    spellings = (name, name.replace("_", " "), name.partition(",")[0], *_synonyms(wnid))
    return next((found[0] for found in map(classes.of_name, spellings) if len(found) == 1), None)


def _are_imagenet(classes: Classes, descriptions: Sequence[str]) -> bool:
    """Whether the model's classes are ImageNet's; libraries spell a few of the names differently."""
    if all(PLACEHOLDER.fullmatch(name) for name in classes.names):
        return True
    same = sum(_plain(name) == _plain(text) for name, text in zip(classes.names, descriptions, strict=True))
    return same > 0.8 * len(classes)


def _plain(name: str) -> str:
    """The first synonym in lower case, without punctuation."""
    return re.sub(r"[\W_]+", " ", name.partition(",")[0]).strip().lower()


def _synonyms(wnid: str | None) -> list[str]:
    """Names of a class of ImageNet-1k by its wnid."""
    if wnid is None or wnid not in _imagenet().label_names():
        return []
    return str(_imagenet().label_name_to_description(wnid)).split(", ")


@cache
def _imagenet() -> ImageNetInfo:
    return ImageNetInfo("imagenet-1k")
