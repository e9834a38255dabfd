"""Tables of what heads and MLPs write: to each class, and to the class that is predicted in its place."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from classlens.analysis.atlas.by_class import ClassMoments
from classlens.analysis.atlas.classes import confusions
from classlens.analysis.atlas.stored import LABEL, MEAN, PREDICTION, AtlasBatch, AtlasStore
from classlens.analysis.atlas.tables import ALL, ATTN, GROUPS, MLP, TIPS, WRITERS, interval_columns
from classlens.core.arrays import Array
from classlens.core.intervals import mean_interval
from classlens.core.moments import Moments
from classlens.tasks.tokens.attribution.schema import ATTRIBUTION

_REST = {"embed_contribution": "embed", "bias_contribution": "bias", "attributed_logit": "logit"}
"""Arrays of an image without parts, and their names in the data set of an atlas."""


class Parts:
    """The heads and MLPs of a model as columns: heads block by block, then the MLPs."""

    def __init__(self, store: AtlasStore) -> None:
        self.blocks, self.heads = store.blocks, store.group(ATTRIBUTION).sizes["head"]
        block, head = np.indices((self.blocks, self.heads)).reshape(2, -1)
        self.block = np.concatenate([block, np.arange(self.blocks)])
        self.head = np.concatenate([head, np.full(self.blocks, -1)])
        self.sublayer = np.where(self.head < 0, MLP, ATTN).astype(object)

    def __len__(self) -> int:
        return len(self.block)

    def columns(self, chosen: Array) -> dict[str, Array]:
        """Columns of tables that tell parts apart."""
        return {"sublayer": self.sublayer[chosen], "block": self.block[chosen], "head": self.head[chosen]}


class Writers:
    """Collects the contributions of parts: to the class of each image, and in the confusions that parts tip."""

    def __init__(self, store: AtlasStore) -> None:
        self._store, self._parts = store, Parts(store)
        self._of_class = ClassMoments(store.num_classes, len(self._parts) + len(_REST))
        self._pairs = _frequent(store)
        self._pair_of_label, self._rival = np.full((2, store.num_classes), -1)
        self._pair_of_label[self._pairs[:, 0]] = np.arange(len(self._pairs))
        self._rival[self._pairs[:, 0]] = self._pairs[:, 1]
        self._tipping = Moments(len(self._pairs), len(self._parts))

    def add(self, batch: AtlasBatch) -> None:
        """Take the images of a batch."""
        of = [str(name) for name in self._store.group(ATTRIBUTION)["of"].values]
        names = ("head_contribution", "mlp_contribution", *_REST)
        arrays = [batch.values(ATTRIBUTION, name).astype(np.float64) for name in names]
        count = len(batch.images)
        columns = np.concatenate([values.reshape(count, len(of), -1) for values in arrays], axis=-1)
        to = dict(zip(of, np.moveaxis(columns, 1, 0), strict=True))
        self._of_class.add(batch, to[self._store.by] - to[MEAN])
        label, prediction = self._store.label[batch.images], self._store.prediction[batch.images]
        tipped = (label >= 0) & (prediction >= 0) & (self._rival[label] == prediction)
        pair = np.where(tipped, self._pair_of_label[label], -1)
        self._tipping.add((to[PREDICTION] - to[LABEL])[:, : len(self._parts)], pair)

    def table(self, confidence: float) -> pd.DataFrame:
        """A row for each class, part and group with an image."""
        tables = []
        for group in GROUPS:
            moments = self._of_class.group(group)
            category, part = np.nonzero(moments.count[:, : len(self._parts)])
            columns = {
                "category": category,
                **self._parts.columns(part),
                "group": np.full(len(category), group, dtype=object),
                **_means(moments, category, part, "contribution", confidence),
            }
            tables.append(WRITERS.frame(columns))
        return pd.concat(tables).sort_values("category", kind="stable", ignore_index=True)

    def tips(self, confidence: float) -> pd.DataFrame:
        """A row for each part in the most frequent confusion of each label."""
        pair, part = np.nonzero(self._tipping.count)
        columns = {
            "label": self._pairs[pair, 0],
            "prediction": self._pairs[pair, 1],
            **self._parts.columns(part),
            **_means(self._tipping, pair, part, "difference", confidence),
        }
        return TIPS.frame(columns)

    def cubes(self) -> Mapping[str, tuple[tuple[str, ...], Array]]:
        """Mean contributions over all images of each class as arrays, with their dims."""
        means = self._of_class.group(ALL).defined_mean
        parts = self._parts
        heads = means[:, : parts.blocks * parts.heads].reshape(-1, parts.blocks, parts.heads)
        of_mlp = means[:, parts.blocks * parts.heads : len(parts)]
        rest = dict(zip(_REST.values(), means[:, len(parts) :].T, strict=True))
        return {
            "head_contribution": (("category", "block", "head"), heads),
            "mlp_contribution": (("category", "block"), of_mlp),
            **{name: (("category",), values) for name, values in rest.items()},
        }


def _frequent(store: AtlasStore) -> Array:
    """The most frequent confusion of each label with two images or more: ``[pair, label and prediction]``."""
    pairs, images = confusions(store)
    pairs = pairs[images >= 2]
    _, first = np.unique(pairs[:, 0], return_index=True)  # the most frequent pairs come first
    return np.asarray(pairs[first])


def _means(moments: Moments, row: Array, column: Array, name: str, confidence: float) -> dict[str, Array]:
    """Columns of some cells: their images, mean and interval."""
    mean, squares, count = (values[row, column] for values in (moments.mean, moments.squares, moments.count))
    return {"images": count, name: mean, **interval_columns("", mean_interval(mean, squares, count, confidence))}
