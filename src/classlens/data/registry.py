"""Data sets by their specs, ``layout:root``, and the choice of some of their images."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Protocol, cast

import numpy as np

from classlens.data.dataset import Dataset
from classlens.errors import ClasslensError, suggestion
from classlens.store.schema import Array

# One file a layout; each offers `read(spec, root, split)`.
LAYOUTS: dict[str, str] = {
    "folder": "classlens.data.layouts.folder",
    "list": "classlens.data.layouts.file_list",
    "imagenet-s": "classlens.data.layouts.imagenet_s",
    "cifar10": "classlens.data.layouts.cifar",
    "cifar100": "classlens.data.layouts.cifar",
    "hf": "classlens.data.layouts.hugging_face",
}


class Layout(Protocol):
    """What the module of a layout offers."""

    def read(self, spec: str, root: str, split: str | None) -> Dataset:
        """The whole data set, its images in order of their names; raises ClasslensError."""
        ...

    def published(self, found: Dataset, per_class: int) -> Dataset | None:
        """The sample of so many images a class that was published, where there is one."""
        ...


def open_dataset(
    spec: str,
    *,
    split: str | None = None,
    per_class: int | None = None,
    limit: int | None = None,
    seed: int | None = None,
) -> Dataset:
    """Open a data set, or some of its images.

        open_dataset("imagenet-s:/data", split="validation", per_class=5)
        open_dataset("folder:photos", limit=100, seed=0)

    Args:
        spec: ``folder:ROOT`` (``ROOT/class/*.jpg``), ``list:FILE``, ``imagenet-s:ROOT``, ``cifar10:ROOT``,
            ``cifar100:ROOT`` or ``hf:NAME``.
        split: such as ``validation``; each layout has its own.
        per_class: images of each class, all where there are fewer.
        limit: images at most, after ``per_class``.
        seed: draws them; when left out they are the first in order of names. They stay in that order.

    Raises:
        ClasslensError: an unknown layout, a root that is not what the layout expects, or no image at all.
    """
    kind, _, root = spec.partition(":")
    if kind not in LAYOUTS or not root:
        hint = f"; did you mean 'folder:{spec}'?" if os.path.exists(spec) else suggestion(kind, LAYOUTS)
        known = ", ".join(f"{name}:" for name in LAYOUTS)
        raise ClasslensError(f"data {spec!r} is not a layout and its place{hint or f'; give one of {known} and where'}")
    for name, count in (("per_class", per_class), ("limit", limit)):
        if count is not None and count < 1:
            raise ClasslensError(f"{name} is {count}: give at least 1")
    if seed is not None and seed < 0:
        raise ClasslensError(f"seed is {seed}: give at least 0")
    layout = cast(Layout, import_module(LAYOUTS[kind]))
    found = layout.read(spec, root, split)
    if per_class is not None:
        if not found.classes:
            raise ClasslensError(f"data {spec!r} has no labels, so there are no images of each class: give limit")
        sample = layout.published(found, per_class) if seed is None and hasattr(layout, "published") else None
        found = found.subset(_of_each_class(found.labels, per_class, seed)) if sample is None else sample
    if limit is not None and limit < len(found):
        found = found.subset(_some(np.arange(len(found)), limit, seed))
    if not len(found):
        raise ClasslensError(f"data {spec!r} holds no images: give the folder that they are in, or another split")
    return found


def _of_each_class(labels: Array, count: int, seed: int | None) -> Array:
    chosen = [_some(np.flatnonzero(labels == label), count, seed) for label in np.unique(labels[labels >= 0])]
    return np.sort(np.concatenate(chosen)) if chosen else np.arange(0)


def _some(indices: Array, count: int, seed: int | None) -> Array:
    if seed is None or count >= len(indices):
        return indices[:count]
    # Seeded by what is drawn from as well, so that classes of one size do not all give the same places.
    drawn = np.random.default_rng([seed, int(indices[0]), len(indices)]).choice(indices, size=count, replace=False)
    return np.sort(drawn)
