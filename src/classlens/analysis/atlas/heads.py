"""Tables of heads: where they attend, what their parameters map to what, and the tokens that they use most."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.atlas.stored import PREDICTION, AtlasBatch, AtlasStore
from classlens.analysis.atlas.tables import HEAD_MAP, HEADS, interval_columns
from classlens.analysis.atlas.tables import HEAD_TOKENS as TOKENS_TABLE
from classlens.core.arrays import Array
from classlens.core.intervals import mean_interval
from classlens.core.moments import Moments
from classlens.tasks.tokens.attribution.schema import ATTRIBUTION, HEAD_MAPS, HEAD_TOKENS

_MEASURES = {"distance": "attention_distance", "entropy": "attention_entropy"}


class Heads:
    """Collects distance and entropy of the attention of every head."""

    def __init__(self, store: AtlasStore) -> None:
        self._store = store
        self._shape = store.blocks, store.group(ATTRIBUTION).sizes["head"]
        self._moments = {name: Moments(1, self._shape[0] * self._shape[1]) for name in _MEASURES}
        self._images = np.zeros(self._shape, dtype=np.int64)
        of = [str(name) for name in store.group(ATTRIBUTION)["of"].values]
        self._prediction = of.index(PREDICTION)

    def add(self, batch: AtlasBatch) -> None:
        """Take the images of a batch."""
        count = len(batch.images)
        for name, stored in _MEASURES.items():
            values = batch.values(ATTRIBUTION, stored).astype(np.float64).reshape(count, -1)
            self._moments[name].add(values, np.zeros(count, dtype=np.int64))
        contribution = batch.values(ATTRIBUTION, "head_contribution", of=self._prediction)
        self._images += (~np.isnan(contribution)).sum(axis=0)

    def table(self, confidence: float) -> pd.DataFrame:
        """A row for every head."""
        block, head = np.nonzero(self._images)
        columns = {"block": block, "head": head, "contribution_images": self._images[block, head]}
        for name, moments in self._moments.items():
            mean, squares, count = (
                values.reshape(self._shape)[block, head]
                for values in (moments.defined_mean, moments.squares, moments.count)
            )
            columns |= {name: mean, **interval_columns(f"{name}_", mean_interval(mean, squares, count, confidence))}
        copied = np.full(self._shape, np.nan)
        if self._store.has(HEAD_MAPS):
            copied = np.asarray(self._store.group(HEAD_MAPS)["copy_share"].values)
        return HEADS.frame({**columns, "copy_share": copied[block, head]})

    def means(self) -> dict[str, Array]:
        """Mean distance and entropy, ``[block, head]``."""
        return {_MEASURES[name]: moments.defined_mean.reshape(self._shape) for name, moments in self._moments.items()}


def head_map_table(store: AtlasStore) -> pd.DataFrame:
    """A row for each of the largest entries of the map of every head."""
    if not store.has(HEAD_MAPS):
        return HEAD_MAP.frame()
    classes = [store.whole(HEAD_MAPS, name, store.num_classes) for name in ("input_class", "output_class")]
    score = np.asarray(store.group(HEAD_MAPS)["score"].values)
    block, head, pair = index = np.nonzero((classes[0] >= 0) & (classes[1] >= 0) & ~np.isnan(score))
    names = np.array(store.class_names, dtype=object)
    columns = {"block": block, "head": head, "pair": pair, "score": score[index]}
    for name, of_entries in zip(("input", "output"), classes, strict=True):
        columns |= {f"{name}_class": of_entries[index], f"{name}_name": names[of_entries[index]]}
    return HEAD_MAP.frame(columns)


def head_token_table(store: AtlasStore) -> pd.DataFrame:
    """A row for each of the strongest tokens of every head."""
    if not store.has(HEAD_TOKENS):
        return TOKENS_TABLE.frame()
    columns, index = strongest_tokens(store, HEAD_TOKENS, "contribution")
    block, head, top = index
    return TOKENS_TABLE.frame({"block": block, "head": head, "top": top, **columns})


def strongest_tokens(store: AtlasStore, group: str, value: str) -> tuple[dict[str, Array], tuple[Array, ...]]:
    """Columns of the tokens of a group with a value each, and their indices in its arrays."""
    image = store.whole(group, "token_image", store.total_images)
    token = store.whole(group, "token", len(store.clean["token"]))
    index = np.nonzero((image >= 0) & (token >= 0))
    columns = {
        **store.token_columns(image[index], token[index]),
        value: np.asarray(store.group(group)[value].values)[index],
        "label": store.label[image[index]],
        "prediction": store.prediction[image[index]],
    }
    return columns, index
