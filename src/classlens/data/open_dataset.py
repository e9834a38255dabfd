"""Opening a data set and choosing its images."""

from __future__ import annotations

import os
from difflib import get_close_matches

import numpy as np

from classlens.core.arrays import Array
from classlens.data.dataset import Dataset
from classlens.data.registry import LAYOUTS
from classlens.errors import ClasslensError


def open_dataset(
    spec: str,
    *,
    split: str | None = None,
    per_class: int | None = None,
    limit: int | None = None,
    seed: int | None = None,
) -> Dataset:
    """Open a data set, or a sample of its images.

    Args:
        spec: layout and place, such as ``folder:ROOT``; the layouts are listed in the documentation.
        split: such as ``"validation"``; each layout has its own default.
        per_class: maximum number of images per class.
        limit: maximum number of images, applied after ``per_class``.
        seed: random seed of the sample; the first images in order of names when left out. The order of names is kept.

    Returns:
        A ``Dataset``.

    Raises:
        ClasslensError: an unknown layout, a root that does not fit the layout, or a data set without images.

    Examples:
        >>> from classlens import open_dataset
        >>> open_dataset("imagenet-s:/data", split="validation", per_class=5)  # doctest: +SKIP
        >>> open_dataset("folder:photos", limit=100, seed=0)  # doctest: +SKIP
    """
    name, _, root = spec.partition(":")
    if name not in LAYOUTS or not root:
        known = ", ".join(f"{layout}:" for layout in LAYOUTS)
        meant = [f"folder:{spec}"] if os.path.exists(spec) else []
        meant += [f"{close}:{LAYOUTS[close].place}" for close in get_close_matches(name, LAYOUTS)]
        raise ClasslensError(
            f"data {spec!r} is not a layout and its place; "
            + (f"did you mean {meant[0]!r}?" if meant else f"give one of {known} and where")
        )
    for option, count in (("per_class", per_class), ("limit", limit)):
        if count is not None and count < 1:
            raise ClasslensError(f"{option} is {count}: give at least 1")
    if seed is not None and seed < 0:
        raise ClasslensError(f"seed is {seed}: give at least 0")
    layout = LAYOUTS[name]
    dataset = layout.read(spec, root, split)
    if per_class is not None:
        if not dataset.classes:
            raise ClasslensError(f"data {spec!r} has no labels, so there are no images of each class: give limit")
        sample = layout.published_sample(dataset, per_class) if seed is None else None
        dataset = dataset.subset(_sample_classes(dataset.labels, per_class, seed)) if sample is None else sample
    if limit is not None and limit < len(dataset):
        dataset = dataset.subset(_sample(np.arange(len(dataset)), limit, seed))
    if not len(dataset):
        raise ClasslensError(f"data {spec!r} holds no images: give the folder that they are in, or another split")
    return dataset


def _sample_classes(labels: Array, count: int, seed: int | None) -> Array:
    """Indices of ``count`` images per class, sorted."""
    samples = [_sample(np.flatnonzero(labels == label), count, seed) for label in np.unique(labels[labels >= 0])]
    return np.sort(np.concatenate(samples)) if samples else np.arange(0)


def _sample(indices: Array, count: int, seed: int | None) -> Array:
    if seed is None or count >= len(indices):
        return indices[:count]
    # The candidates are part of the seed: classes of one size would otherwise all give the same positions.
    generator = np.random.default_rng([seed, int(indices[0]), len(indices)])
    return np.sort(generator.choice(indices, size=count, replace=False))
