"""The table behind a gallery: a row for each image of a store, with the numbers that tell images apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from classlens.analysis.gallery_columns import COLUMNS, ImageColumn
from classlens.analysis.measured_store import MeasuredStore, StoredBatch
from classlens.core.arrays import Array
from classlens.core.stats import Statistics


@dataclass(frozen=True, eq=False)
class GalleryTable:
    """Numbers of the images of a store.

    Attributes:
        images: one row per image with a measurement, in the order of the store: ``index`` in the store, ``image`` (its
            name), ``label`` and ``prediction`` (indices of classes; -1 for none), ``correct`` (1, 0, or NaN without a
            label), ``confusion`` (rank of a wrong prediction's pair of label and prediction, the most frequent pair
            being 0; NaN for others), and those of ``COLUMNS`` that the store has.
        missing: why a column is not there, by its name.
        class_names: names of all classes.
    """

    images: pd.DataFrame
    missing: Mapping[str, str] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()


def gallery_table(
    store: MeasuredStore,
    statistics: Statistics | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> GalleryTable:
    """Read the table of a store, batch by batch; ``report`` is told the images that are read, and all of them.

    ``gallery_table(MeasuredStore("photos.zarr")).images.nsmallest(20, "margin")``
    """
    missing = {name: reason for name, column in COLUMNS.items() if (reason := column.lacks(store)) is not None}
    columns = {name: column for name, column in COLUMNS.items() if name not in missing}
    parts, done = [], 0
    for batch in store.batches():
        parts.append(_batch_rows(batch, columns))
        done += batch.images
        report(done, store.images)
    images = pd.concat(parts, ignore_index=True)
    images["confusion"] = _confusion(images)
    for name, column in columns.items():
        if column.of_images is not None:
            values = column.of_images(store, images, statistics or Statistics())
            if isinstance(values, str):
                missing[name] = values
            else:
                images[name] = values.astype(np.float64)
    kept = [name for name in columns if name in images]
    names = [*(name for name in images if name not in columns), *kept]
    return GalleryTable(
        images[names], {name: missing[name] for name in COLUMNS if name in missing}, tuple(store.class_names())
    )


def _batch_rows(batch: StoredBatch, columns: Mapping[str, ImageColumn]) -> pd.DataFrame:
    correct = batch.values("correct").astype(np.float64)
    rows: dict[str, Array] = {
        "index": batch.indices,
        "image": batch.names(),
        "label": batch.values("label").astype(np.int64),
        "prediction": batch.values("prediction").astype(np.int64),
        "correct": np.where(correct < 0, np.nan, correct),
    }
    for name, column in columns.items():
        if column.of_batch is not None:
            rows[name] = column.of_batch(batch).astype(np.float64)
    return pd.DataFrame(rows)


def _confusion(images: pd.DataFrame) -> Array:
    """The rank of the pair of each wrong prediction, by frequency; ties go by label, then prediction."""
    wrong = images[images["correct"] == 0]
    counts = wrong.groupby(["label", "prediction"]).size().rename("count").reset_index()
    counts = counts.sort_values(["count", "label", "prediction"], ascending=[False, True, True])
    rank = {pair: float(i) for i, pair in enumerate(zip(counts["label"], counts["prediction"], strict=True))}
    values = np.full(len(images), np.nan)
    values[wrong.index] = [rank[pair] for pair in zip(wrong["label"], wrong["prediction"], strict=True)]
    return values
