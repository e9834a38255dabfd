"""Opening a data set and choosing its images."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Mapping
from difflib import get_close_matches

import numpy as np

from classlens.core.arguments import AnyPath, AtLeast1, Seed, checked
from classlens.core.arrays import Array
from classlens.core.path_arguments import checked_with_home
from classlens.data.dataset import Dataset
from classlens.data.own_masks import with_masks
from classlens.data.registry import LAYOUTS
from classlens.errors import ClasslensError


@checked_with_home
def open_dataset(
    spec: str,
    *,
    split: str | None = None,
    label_column: str | None = None,
    masks: AnyPath | None = None,
    mask_values: str | None = None,
    per_class: AtLeast1 | None = None,
    limit: AtLeast1 | None = None,
    seed: Seed | None = None,
) -> Dataset:
    """Open a data set, or a sample of its images.

    Args:
        spec: layout and place, such as ``folder:ROOT``; the layouts are listed in the documentation.
        split: such as ``"validation"``; each layout has its own default.
        label_column: column of a table (``list:`` with a ``.csv``, ``hf:``) that has the classes; ``"none"`` for
            images without labels. By default the one named ``label``, ``class``, ``category`` or ``target``.
        masks: folder of masks that show where the class is, in place of those of the layout: files of the same relative
            path as the images, with the ending ``.png``, ``.bmp`` or ``.npy``. A mask has the size of its image.
        mask_values: what the values of ``masks`` mean, such as ``"object=1,3 ignore=255"``, or in colors as
            ``"object=#ff0000"``. Other values are background, unless ``background=`` names those. When left out, 0 is
            background, and 1 or 255 is the object.
        per_class: maximum number of images per class.
        limit: maximum number of images, spread evenly over the classes; applied after ``per_class``.
        seed: random seed of the sample; the first images in order of names when left out. The order of names is kept.

    Returns:
        A ``Dataset``.

    Raises:
        ClasslensError: an unknown layout, a root that does not fit the layout, a data set without images, or masks of
            none of them.

    Examples:
        >>> from classlens import open_dataset
        >>> open_dataset("imagenet-s:/data", split="validation", per_class=5)  # doctest: +SKIP
        >>> open_dataset("folder:photos", limit=100, seed=0)  # doctest: +SKIP
        >>> open_dataset("folder:photos", masks="trimaps", mask_values="object=1 ignore=3")  # doctest: +SKIP
    """
    if mask_values is not None and masks is None:
        raise ClasslensError(f"mask values {mask_values!r} were given without masks: give their folder too")
    name, _, root = spec.partition(":")
    if name not in LAYOUTS or not root:
        known = ", ".join(f"{layout}:" for layout in LAYOUTS)
        meant = [f"folder:{spec}"] if os.path.exists(spec) else []
        meant += [f"{close}:{LAYOUTS[close].place}" for close in get_close_matches(name, LAYOUTS)]
        raise ClasslensError(
            f"data {spec!r} is not a layout and its place; "
            + (f"did you mean {meant[0]!r}?" if meant else f"give one of {known} and where")
        )
    layout = LAYOUTS[name]
    if label_column is not None and layout.read_column is None:
        raise ClasslensError(f"data {spec!r} has no columns: leave out label column {label_column!r}")
    if label_column is None or layout.read_column is None:
        dataset = layout.read(spec, root, split)
    else:
        dataset = layout.read_column(spec, root, split, label_column)
    if per_class is not None and seed is None and dataset.classes:
        published = layout.published_sample(dataset, per_class)
        dataset, per_class = (dataset, per_class) if published is None else (published, None)
    dataset = sample_images(dataset, per_class=per_class, limit=limit, seed=seed)
    return dataset if masks is None else with_masks(dataset, masks, mask_values)


@checked
def sample_images(
    dataset: Dataset, *, per_class: AtLeast1 | None, limit: AtLeast1 | None, seed: Seed | None
) -> Dataset:
    """A sample of the images of a data set; see ``open_dataset``."""
    if per_class is not None:
        if not dataset.classes:
            raise ClasslensError(
                f"data {dataset.spec!r} has no labels, so there are no images of each class: give limit"
            )
        labels = np.unique(dataset.labels[dataset.labels >= 0])
        dataset = dataset.subset(_sample_classes(dataset.labels, dict.fromkeys(labels.tolist(), per_class), seed))
    if limit is not None and limit < len(dataset):
        dataset = dataset.subset(_sample_classes(dataset.labels, _quotas(dataset.labels, limit, seed), seed))
    if not len(dataset):
        raise ClasslensError(
            f"data {dataset.spec!r} holds no images: give the folder that they are in, or another split"
        )
    return dataset


def _quotas(labels: Array, limit: int, seed: int | None) -> dict[int, int]:
    """Images of each class, as even as the classes allow: round after round, one of each class that has more.

    The last round goes through the classes in order, or in a drawn one; images without a label count as the last class.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    order = np.roll(np.arange(len(classes)), -int(classes[0] < 0))
    if seed is not None:
        order = np.random.default_rng(seed).permutation(order)
    # The most rounds that all classes go through within the limit.
    rounds = bisect_right(range(limit + 1), limit, key=lambda count: int(np.minimum(sizes, count).sum())) - 1
    quotas = np.minimum(sizes, rounds)
    more = order[sizes[order] > rounds][: limit - quotas.sum()]
    quotas[more] += 1
    return dict(zip(classes.tolist(), quotas.tolist(), strict=True))


def _sample_classes(labels: Array, quotas: Mapping[int, int], seed: int | None) -> Array:
    """Indices of so many images of each class, sorted."""
    samples = [_sample(np.flatnonzero(labels == label), count, seed) for label, count in quotas.items() if count]
    return np.sort(np.concatenate(samples)) if samples else np.arange(0)


def _sample(indices: Array, count: int, seed: int | None) -> Array:
    if seed is None or count >= len(indices):
        return indices[:count]
    # The candidates are part of the seed: classes of one size would otherwise all give the same positions.
    generator = np.random.default_rng([seed, int(indices[0]), len(indices)])
    return np.sort(generator.choice(indices, size=count, replace=False))
