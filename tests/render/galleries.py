"""Galleries with drawn numbers, made without a store or a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from classlens.analysis.gallery import GalleryTable
from classlens.analysis.gallery_columns import COLUMNS
from classlens.data.dataset import ClassName, Dataset, ImageFiles
from tests.render.atlases import PHOTO_CLASSES


@dataclass(frozen=True)
class GallerySizes:
    """Sizes and texts of a gallery; ``missing`` names columns that the store lacks."""

    images: int = 60
    classes: Sequence[str] = PHOTO_CLASSES
    labels: bool = True
    missing: Sequence[str] = ()
    first_names: Sequence[str] = ()
    seed: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        drawn = (f"{i % len(self.classes):03d}/photo {i:05d}.jpg" for i in range(self.images))
        return (*self.first_names, *drawn)[: self.images]


def make_gallery(sizes: GallerySizes) -> GalleryTable:
    """A table of images; every third index of the store was not measured, and some numbers are not known."""
    rng = np.random.default_rng(sizes.seed)
    count = sizes.images
    label = rng.integers(0, len(sizes.classes), count)
    wrong = rng.random(count) < 0.2
    prediction = np.where(wrong, (label + rng.integers(1, 3, count)) % len(sizes.classes), label)
    images = pd.DataFrame(
        {
            "index": np.arange(count) * 3 // 2,
            "image": list(sizes.names),
            "label": label if sizes.labels else -1,
            "prediction": prediction,
            "correct": (~wrong).astype(float) if sizes.labels else np.nan,
        }
    )
    pairs = list(zip(label[wrong], prediction[wrong], strict=True))
    counts = Counter(pairs)
    order = sorted(counts, key=lambda pair: (-counts[pair], pair))
    images["confusion"] = np.nan
    if sizes.labels:
        images.loc[wrong, "confusion"] = [float(order.index(pair)) for pair in pairs]
    for name, column in COLUMNS.items():
        if name in sizes.missing:
            continue
        values = {
            "share": rng.beta(2, 1, count),
            "number": rng.normal(1, 2, count),
            "whole": rng.integers(0, 9, count).astype(float),
        }[column.kind]
        images[name] = np.where(rng.random(count) < 0.02, np.nan, values)
    reasons = {name: f"measure anew with --{name}" for name in COLUMNS if name in sizes.missing}
    return GalleryTable(images, reasons, tuple(sizes.classes))


def photo_files(folder: Path, sizes: GallerySizes) -> Dataset:
    """The data set of the images, whose files need not be there."""
    names = sizes.names
    source = ImageFiles(folder, names)
    return Dataset.whole("folder:photos", None, names, [-1] * len(names), [ClassName("none")][:0], source)


ATTRS: dict[str, Any] = {"model": "builtin:photos", "data": "folder:photos", "split": None}
