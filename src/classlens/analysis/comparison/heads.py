"""Tables of heads and MLPs: how their contributions to the label changed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from classlens.analysis.atlas.stored import LABEL, MEAN, AtlasStore, NothingAttributed
from classlens.analysis.atlas.tables import interval_columns
from classlens.analysis.atlas.writers import Parts
from classlens.analysis.comparison.pairing import Pairing
from classlens.analysis.comparison.tables import HEAD_CLASSES, HEADS, TOP_CLASSES
from classlens.analysis.measured_store import MeasuredStore
from classlens.core.arrays import Array
from classlens.core.intervals import mean_interval
from classlens.core.moments import Moments
from classlens.core.paired import adjusted, paired_t
from classlens.store.metadata import SHARD
from classlens.tasks.tokens.attribution.schema import ATTRIBUTION

_MAX_VALUES = 2**20
"""Values of one variable that are read at once."""


class PartChanges:
    """Collects the contributions of every head and MLP to the label, in both stores, by class."""

    def __init__(self, first: AtlasStore, second: AtlasStore, pairing: Pairing) -> None:
        self._stores, self._pairing, self._parts = (first, second), pairing, Parts(first)
        shape = len(pairing.class_names), len(self._parts)
        self._first, self._second, self._apart = (Moments(*shape) for _ in range(3))

    def read(self) -> None:
        """Read the contributions, batch by batch in the order of the first store."""
        for rows, label in self._batches():
            first, second = (
                _contributions(store, facts.index[rows])
                for store, facts in zip(self._stores, (self._pairing.first, self._pairing.second), strict=True)
            )
            missing = np.isnan(first) | np.isnan(second)
            first[missing] = second[missing] = np.nan
            for moments, values in ((self._first, first), (self._second, second), (self._apart, second - first)):
                moments.add(values, label)

    def _batches(self) -> Iterator[tuple[Array, Array]]:
        pairing = self._pairing
        measured = [
            np.isin(facts.index, store.images)
            for store, facts in zip(self._stores, (pairing.first, pairing.second), strict=True)
        ]
        rows = np.flatnonzero(pairing.labeled & measured[0] & measured[1])
        step = max(1, _MAX_VALUES // (3 * len(self._parts) * SHARD)) * SHARD
        for start in range(0, len(rows), step):
            chosen = rows[start : start + step]
            yield chosen, pairing.label[chosen]

    def table(self, confidence: float) -> pd.DataFrame:
        """A row for each part with a contribution in both."""
        first, second, apart = (_all_classes(moments) for moments in (self._first, self._second, self._apart))
        part = np.flatnonzero(apart.count[0])
        count, mean, squares = apart.count[0, part], apart.mean[0, part], apart.squares[0, part]
        effect, p = paired_t(mean, squares, count)
        table = HEADS.frame(
            {
                **self._parts.columns(part),
                "images": count,
                "first": first.mean[0, part],
                "second": second.mean[0, part],
                "difference": mean,
                **interval_columns("difference_", mean_interval(mean, squares, count, confidence)),
                "effect": effect,
                "p": p,
                "p_adjusted": adjusted(p),
            }
        )
        size = -np.abs(table["effect"].to_numpy())  # NaN, of a single image, comes last
        return table.iloc[np.argsort(size, kind="stable")].reset_index(drop=True)

    def class_table(self, confidence: float) -> pd.DataFrame:
        """A row for each of the classes in which a part changed most."""
        apart = self._apart
        size = np.where(apart.count > 1, np.abs(apart.mean), -1)
        category = np.argsort(-size, axis=0, kind="stable")[:TOP_CLASSES]
        part = np.broadcast_to(np.arange(len(self._parts)), category.shape)
        category, part = category.T.ravel(), part.T.ravel()
        present = size[category, part] >= 0
        cell = category[present], part[present]
        count, mean, squares = apart.count[cell], apart.mean[cell], apart.squares[cell]
        return HEAD_CLASSES.frame(
            {
                **self._parts.columns(cell[1]),
                "class_name": self._pairing.class_names[cell[0]],
                "images": count,
                "first": self._first.mean[cell],
                "second": self._second.mean[cell],
                "difference": mean,
                **interval_columns("difference_", mean_interval(mean, squares, count, confidence)),
            }
        )


def head_tables(
    first: MeasuredStore, second: MeasuredStore, pairing: Pairing, confidence: float
) -> tuple[pd.DataFrame, pd.DataFrame, str | None]:
    """Both tables, and why they are empty."""
    stores, reason = _attributed(first, second)
    if reason is None and not pairing.labeled.any():
        reason = "no image has a label, to whose logit contributions are compared"
    if stores is None or reason is not None:
        return HEADS.frame(), HEAD_CLASSES.frame(), reason
    changes = PartChanges(*stores, pairing)
    changes.read()
    table = changes.table(confidence)
    empty = "no labeled image has contributions in both stores" if table.empty else None
    return table, changes.class_table(confidence), empty


def _attributed(first: MeasuredStore, second: MeasuredStore) -> tuple[tuple[AtlasStore, AtlasStore] | None, str | None]:
    """Both stores with their contributions; else the reason."""
    lacking = next((store for store in (first, second) if not store.has(ATTRIBUTION)), None)
    if lacking is not None:
        return None, f"store {lacking.url!r} has no attribution: measure it with --attribution"
    try:
        stores = AtlasStore(first.url), AtlasStore(second.url)
    except NothingAttributed as error:
        return None, str(error)
    shapes = [(store.blocks, store.group(ATTRIBUTION).sizes["head"]) for store in stores]
    if shapes[0] != shapes[1]:
        words = " and ".join(f"{blocks} blocks of {heads} heads" for blocks, heads in shapes)
        return None, f"the models have {words}, which are not the same parts"
    return stores, None


def _contributions(store: AtlasStore, images: Array) -> Array:
    """``[image, part]``: contribution to the label above that to the mean of all logits."""
    data, of = store.group(ATTRIBUTION), {LABEL: 0, MEAN: 2}
    order = np.argsort(images, kind="stable")
    columns = []
    for name in ("head_contribution", "mlp_contribution"):
        values = np.asarray(data[name].isel(image=images[order]).values, dtype=np.float64)
        columns.append((values[:, of[LABEL]] - values[:, of[MEAN]]).reshape(len(images), -1))
    return np.concatenate(columns, axis=1)[np.argsort(order)]


def _all_classes(moments: Moments) -> Moments:
    """The moments over all images."""
    total = moments.of(slice(0, 1))
    for category in range(1, len(moments.count)):
        total = total.merged(moments.of(slice(category, category + 1)))
    return total
