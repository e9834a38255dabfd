"""The table of hidden units that write each class, from the strongest units of every image."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.atlas.stored import AtlasBatch, AtlasStore
from classlens.analysis.atlas.tables import TOP_UNITS, UNIT_WRITERS, interval_columns
from classlens.core.intervals import mean_interval
from classlens.store.schema import MEASURED
from classlens.tasks.tokens.attribution.schema import UNITS

_SUMS = ("listed", "total", "squares", "last")


class UnitWriters:
    """Collects sums over images for each pair of a class and a unit that some image of the class lists.

    There are far fewer such pairs than classes times units.
    """

    def __init__(self, store: AtlasStore) -> None:
        self._store = store
        self._images = np.zeros(store.num_classes, dtype=np.int64)
        self._last = np.zeros(store.num_classes)
        self._pair = np.zeros(0, dtype=np.int64)
        self._sums = np.zeros((len(_SUMS), 0))
        if store.has(UNITS):
            labels = [str(name) for name in store.group(UNITS)["unit_of"].values]
            self._of = labels.index(store.by)
            self._units = store.blocks * store.units_per_block

    def add(self, batch: AtlasBatch) -> None:
        """Take the images of a batch."""
        if not self._store.has(UNITS):
            return
        known = (batch.category >= 0) & (batch.values(UNITS, "measured") == MEASURED)
        category = batch.category[known]
        unit = self._store.within("top_unit", batch.values(UNITS, "top_unit", unit_of=self._of)[known], self._units)
        value = batch.values(UNITS, "top_unit_contribution", unit_of=self._of)[known].astype(np.float64)
        # A list with room left has all units, and bounds what it lacks by 0.
        last = np.where(unit[:, -1] >= 0, np.abs(value[:, -1]), 0)
        self._images += np.bincount(category, minlength=len(self._images))
        self._last += np.bincount(category, last, minlength=len(self._last))
        image, rank = np.nonzero(unit >= 0)
        listed = value[image, rank]
        pair = np.concatenate([self._pair, category[image] * self._units + unit[image, rank]])
        sums = np.concatenate([self._sums, [np.ones(len(image)), listed, listed**2, last[image]]], axis=1)
        self._pair, index = np.unique(pair, return_inverse=True)
        self._sums = np.stack([np.bincount(index, row, minlength=len(self._pair)) for row in sums])

    def table(self, confidence: float) -> pd.DataFrame:
        """A row for each of the strongest units of every class."""
        if not len(self._pair):
            return UNIT_WRITERS.frame()
        category, unit = np.divmod(self._pair, self._units)
        listed, total, squares, last = self._sums
        images = self._images[category]
        mean = total / images
        ends = mean_interval(mean, np.maximum(squares - images * mean**2, 0), images, confidence)
        block, unit = np.divmod(unit, self._store.units_per_block)
        columns = {
            "category": category,
            "block": block,
            "unit": unit,
            "images": images,
            "listed": listed.astype(np.int64),
            "contribution": mean,
            **interval_columns("", ends),
            "bound": np.maximum(self._last[category] - last, 0) / images,
        }
        order = np.lexsort([self._pair, -mean, category])
        order = order[mean[order] > 0]
        table = UNIT_WRITERS.frame({name: values[order] for name, values in columns.items()})
        return table.groupby("category", sort=False).head(TOP_UNITS).reset_index(drop=True)
