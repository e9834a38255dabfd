"""What a data set looks like to everything that measures it, whatever layout it lies in."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Bool
from PIL import Image

from classlens.errors import ClasslensError
from classlens.models.images import open_picture
from classlens.store.schema import Array


@dataclass(frozen=True)
class ClassName:
    """A class as the data set calls it."""

    name: str
    wnid: str | None = None
    """Its WordNet id (``n02123045``), where the layout tells."""


class Source(Protocol):
    """Where images come from, by their place in the whole data set. It can be pickled."""

    @property
    def has_masks(self) -> bool: ...

    def picture(self, place: int) -> Image.Image:
        """An upright RGB image; raises ClasslensError for one that cannot be read."""
        ...

    def mask(self, place: int) -> Bool[np.ndarray, "height width"] | None:
        """Where the image shows its own class; None where that is not known."""
        ...

    def ignored(self, place: int) -> Bool[np.ndarray, "height width"] | None:
        """Where the mask leaves open what the image shows; None where it does so nowhere."""
        ...

    def size(self, place: int) -> int:
        """Its bytes, to tell one version of the data from another."""
        ...


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with names, labels and perhaps masks; made by ``open_dataset``.

    dataset = open_dataset("folder:/data/flowers", per_class=10)
    dataset.picture(0), dataset.classes[dataset.labels[0]].name
    """

    spec: str
    split: str | None
    names: tuple[str, ...]
    """One an image and no two alike: the path relative to the root of the data."""
    labels: Array
    """Index into ``classes``, -1 for an image without a label."""
    classes: tuple[ClassName, ...]
    source: Source
    places: Array
    """Where each image stands in ``source``."""
    note: str = ""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def has_masks(self) -> bool:
        return self.source.has_masks

    def picture(self, index: int) -> Image.Image:
        """See ``Source``."""
        return self.source.picture(int(self.places[index]))

    def mask(self, index: int) -> Bool[np.ndarray, "height width"] | None:
        """See ``Source``."""
        return self.source.mask(int(self.places[index]))

    def ignored(self, index: int) -> Bool[np.ndarray, "height width"] | None:
        """See ``Source``."""
        return self.source.ignored(int(self.places[index]))

    def subset(self, indices: Sequence[int] | Array) -> Dataset:
        """Some of the images, in the order given."""
        chosen = np.asarray(indices, dtype=np.int64)
        names = tuple(self.names[index] for index in chosen)
        return replace(self, names=names, labels=self.labels[chosen], places=self.places[chosen])

    @cached_property
    def fingerprint(self) -> str:
        """A digest of names, labels, classes and sizes: of other images it is another."""
        digest = hashlib.sha256()
        for kind in self.classes:
            digest.update(f"{kind.name}\0{kind.wnid}\0".encode(errors="surrogateescape"))
        for name, label, place in zip(self.names, self.labels.tolist(), self.places.tolist(), strict=True):
            # A file name that is no text holds surrogates.
            digest.update(f"{name}\0{label}\0{self.source.size(place)}\0".encode(errors="surrogateescape"))
        return digest.hexdigest()


def dataset(
    spec: str,
    split: str | None,
    names: Sequence[str],
    labels: Sequence[int] | Array,
    classes: Sequence[ClassName],
    source: Source,
    note: str = "",
) -> Dataset:
    """A whole data set, as a layout has found it."""
    places = np.arange(len(names))
    return Dataset(spec, split, tuple(names), np.asarray(labels, dtype=np.int64), tuple(classes), source, places, note)


@dataclass(frozen=True)
class Files:
    """Images that are files of their own."""

    root: Path
    paths: tuple[str, ...]
    """Relative to ``root``, or absolute."""
    has_masks: bool = False

    def picture(self, place: int) -> Image.Image:
        return open_picture(self.root / self.paths[place]).image

    def mask(self, place: int) -> Bool[np.ndarray, "height width"] | None:
        return None

    def ignored(self, place: int) -> Bool[np.ndarray, "height width"] | None:
        return None

    def size(self, place: int) -> int:
        try:
            return os.stat(self.root / self.paths[place]).st_size
        except OSError:
            return -1  # an image that is gone is told when it is its turn


def text_of(file: Path) -> str:
    """A text file that belongs to a data set; raises ClasslensError."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ClasslensError(f"file {str(file)!r} cannot be read ({reason}): give the published file") from None


def folder_of(spec: str, root: str) -> Path:
    """The root of a data set as a folder that is there; raises ClasslensError."""
    path = Path(root).expanduser()
    if not path.is_dir():
        raise ClasslensError(f"data {spec!r}: {str(path)!r} is not a folder; give the root folder of the data")
    return path
