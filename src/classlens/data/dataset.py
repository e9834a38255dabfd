"""A data set as every task sees it, whatever its layout."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int
from PIL import Image

from classlens.core.arguments import WholeNumbers, checked, shown, whole_number
from classlens.core.arrays import Array
from classlens.errors import ClasslensError
from classlens.models.images import open_picture

Masks = tuple[Bool[np.ndarray, "height width"] | None, Bool[np.ndarray, "height width"] | None]
"""Pixels of an image that show its own class, and pixels whose content its mask leaves open."""

_END = 2**16
"""Bytes at either end of a file that tell its versions apart."""


@checked
@dataclass(frozen=True)
class ClassName:
    """A class of a data set.

    Args:
        name: what the data set calls the class.
        wnid: its WordNet id, such as ``n02123045``; None where the layout has none.
    """

    name: str
    wnid: str | None = None


@runtime_checkable
class Source(Protocol):
    """Images by their position in the whole data set. A source can be pickled."""

    @property
    def has_masks(self) -> bool: ...

    def picture(self, position: int) -> Image.Image:
        """An upright RGB image; raises ClasslensError for an unreadable file."""
        ...

    def masks(self, position: int) -> Masks:
        """True where the image shows its own class, and true where the mask does not say what it shows.

        The first is None without a mask; the second is None where the mask always says it.
        """
        ...

    def content(self, position: int) -> int:
        """A number below 2**63 that changes with the image; see ``file_content`` for files."""
        ...


@checked
@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with names, labels and possibly masks; made by ``classlens.open_dataset``.

    Args:
        spec: layout and root, such as ``folder:/data/flowers``.
        split: name of the split; None where the layout has none.
        names: one unique name per image: its path relative to the root.
        labels: ``[image]``, index into ``classes``; -1 for an image without a label.
        classes: the classes of the data set.
        source: where the images come from.
        positions: ``[image]``, position of each image in ``source``.
        note: what a reader of results should know about the choice of images.
        masks: what the values of masks of one's own mean (see ``open_dataset``); empty for those of the layout.

    Examples:
        >>> from classlens import open_dataset
        >>> dataset = open_dataset("folder:/data/flowers", per_class=10)  # doctest: +SKIP
        >>> dataset.picture(0), dataset.classes[dataset.labels[0]].name  # doctest: +SKIP
    """

    spec: str
    split: str | None
    names: tuple[str, ...]
    labels: Array
    classes: tuple[ClassName, ...]
    source: Source
    positions: Array
    note: str = ""
    masks: str = ""

    @classmethod
    def whole(
        cls,
        spec: str,
        split: str | None,
        names: Sequence[str],
        labels: Sequence[int] | WholeNumbers,
        classes: Sequence[ClassName],
        source: Source,
        note: str = "",
    ) -> Dataset:
        """All images of a source, in its order."""
        labels = np.asarray(labels, dtype=np.int64)
        if labels.shape != (len(names),):
            raise ClasslensError(f"data {spec!r} has {len(names)} images and {labels.size} labels: give one each")
        if len(set(names)) < len(names):
            twice = next(name for name, count in Counter(names).items() if count > 1)
            raise ClasslensError(f"data {spec!r} has two images of the name {twice!r}: give each its own")
        if len(labels) and not -1 <= labels.min() <= labels.max() < len(classes):
            raise ClasslensError(
                f"data {spec!r} has labels from {labels.min()} to {labels.max()} and {len(classes)} classes: give the "
                "index of a class, or -1 without a label"
            )
        positions = np.arange(len(names))
        return cls(spec, split, tuple(names), labels, tuple(classes), source, positions, note)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def has_masks(self) -> bool:
        """Whether the source has masks of the classes."""
        return self.source.has_masks

    def picture(self, index: int) -> Image.Image:
        """An upright RGB image; raises ClasslensError for an unreadable file."""
        return self.source.picture(self._position(index))

    def file(self, index: int) -> Path | None:
        """Absolute path of the file of an image; None for an image that is not a file of its own."""
        position = self._position(index)
        photos = getattr(self.source, "photos", self.source)  # sources with masks hold that of their photos
        files = getattr(photos, "files", photos)
        return Path(os.path.abspath(files.root / files.paths[position])) if isinstance(files, ImageFiles) else None

    def mask(self, index: int) -> Bool[np.ndarray, "height width"] | None:
        """True where the image shows its own class; None without a mask."""
        return self.source.masks(self._position(index))[0]

    def ignored(self, index: int) -> Bool[np.ndarray, "height width"] | None:
        """True where the mask does not say what the image shows; None where it always does."""
        return self.source.masks(self._position(index))[1]

    def _position(self, index: int) -> int:
        return int(self.positions[whole_number("index", index, 0, len(self) - 1)])

    def subset(self, indices: Array | Sequence[int]) -> Dataset:
        """Chosen images, in the order given; raises ClasslensError for an index that is none of theirs."""
        chosen = np.asarray(indices)
        whole = chosen.ndim == 1 and (not len(chosen) or chosen.dtype.kind in "iu")
        if not whole or not np.isin(chosen, np.arange(len(self))).all():
            last = len(self) - 1
            raise ClasslensError(f"indices {shown(indices)} cannot be used: give whole numbers from 0 to {last}")
        chosen = chosen.astype(np.int64)
        names = tuple(self.names[index] for index in chosen)
        return replace(self, names=names, labels=self.labels[chosen], positions=self.positions[chosen])

    @property
    def missing_masks(self) -> tuple[str, ...]:
        """Names of images that lack a mask beside others that have one, where the folder of masks tells it."""
        missing: frozenset[int] = getattr(self.source, "missing", frozenset())
        return tuple(name for name, at in zip(self.names, self.positions.tolist(), strict=True) if at in missing)

    @property
    def unknown_is_context(self) -> bool:
        """Whether tokens that the mask leaves open count as context, as published for ImageNet-S."""
        return bool(getattr(self.source, "unknown_is_context", False))

    @property
    def class_counts(self) -> dict[str, int]:
        """Number of images by name of their class, in order; a name that several classes have goes with the wnid."""
        names = Counter(category.name for category in self.classes)
        counts = np.bincount(self.labels[self.labels >= 0], minlength=len(self.classes)).tolist()
        return {
            category.name if names[category.name] == 1 else f"{category.name} ({category.wnid or index})": count
            for index, (category, count) in enumerate(zip(self.classes, counts, strict=True))
            if count
        }

    def content(self, indices: Iterable[int]) -> Int[np.ndarray, " image"]:
        """A number for each image that changes with it, read by several threads."""
        positions = [self._position(index) for index in indices]
        with ThreadPoolExecutor() as pool:
            return np.array(list(pool.map(self.source.content, positions, chunksize=64)), dtype=np.int64)

    @cached_property
    def content_digest(self) -> str:
        """SHA-256 of the content of all images."""
        return hashlib.sha256(self.content(range(len(self))).tobytes()).hexdigest()


@dataclass(frozen=True)
class ImageFiles:
    """A source of image files; ``paths`` are relative to ``root``, or absolute."""

    root: Path
    paths: tuple[str, ...]
    has_masks: bool = False

    def picture(self, position: int) -> Image.Image:
        return open_picture(self.root / self.paths[position]).image

    def masks(self, position: int) -> Masks:
        return None, None

    def content(self, position: int) -> int:
        return file_content(self.root / self.paths[position])


def file_content(path: Path) -> int:
    """A hash of the size and of the first and last 64 KiB of a file, below 2**63; 0 for a file that cannot be read.

    Two reads tell apart versions of an image at a small part of the cost of decoding it.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
            return 0
        with path.open("rb") as file:
            digest = hashlib.blake2b(f"{status.st_size} ".encode() + file.read(_END), digest_size=8)
            if status.st_size > _END:
                file.seek(max(_END, status.st_size - _END))
                digest.update(file.read(_END))
    except OSError:
        return 0  # a missing image is reported when it is read
    return int.from_bytes(digest.digest(), "little") >> 1


def read_text_file(file: Path) -> str:
    """A UTF-8 text file of a data set; raises ClasslensError for an unreadable one."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ClasslensError(f"file {str(file)!r} cannot be read ({reason}): give the published file") from None


def data_root(spec: str, root: str) -> Path:
    """The root folder of a data set; raises ClasslensError where it does not exist."""
    path = Path(root).expanduser()
    if not path.is_dir():
        raise ClasslensError(f"data {spec!r}: {str(path)!r} is not a folder; give the root folder of the data")
    return path
