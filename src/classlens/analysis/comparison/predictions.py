"""Tables of predictions: images and their flips, and accuracy by class."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int
from numpy import ndarray

from classlens.analysis.atlas.tables import interval_columns
from classlens.analysis.comparison.pairing import Pairing
from classlens.analysis.comparison.tables import BROKEN, CHANGED, CLASSES, FIXED, FLIPS, IMAGES, KINDS, SAME
from classlens.core.arrays import Array
from classlens.core.intervals import share_interval
from classlens.core.paired import adjusted, mcnemar, paired_share_interval
from classlens.core.stats import ratio


def kinds(pairing: Pairing) -> Int[ndarray, " image"]:
    """The flip of each image, as an index of ``KINDS``."""
    first, second = pairing.right
    return np.select(
        [first & ~second, second & ~first, pairing.first.prediction != pairing.second.prediction],
        [KINDS.index(kind) for kind in (BROKEN, FIXED, CHANGED)],
        KINDS.index(SAME),
    )


def image_table(pairing: Pairing) -> pd.DataFrame:
    """A row for every image."""
    first, second, names = pairing.first, pairing.second, _names(pairing)
    kind = kinds(pairing)
    table = IMAGES.frame(
        {
            "image": first.name,
            "image_second": second.name,
            "index_first": first.index,
            "index_second": second.index,
            "label": names[pairing.label],
            "prediction_first": names[first.prediction],
            "prediction_second": names[second.prediction],
            "confidence_first": first.confidence,
            "confidence_second": second.confidence,
            "kind": np.array(KINDS, dtype=object)[kind],
            "commitment_first": first.commitment,
            "commitment_second": second.commitment,
        }
    )
    return table.iloc[np.lexsort([first.index, -second.confidence, kind])].reset_index(drop=True)


def flip_table(pairing: Pairing) -> pd.DataFrame:
    """A row for each label and pair of predictions that differ."""
    names, kind = _names(pairing), kinds(pairing)
    flipped = kind != KINDS.index(SAME)
    values = np.stack([pairing.label, pairing.first.prediction, pairing.second.prediction, kind], axis=1)[flipped]
    rows, images = np.unique(values.reshape(-1, 4), axis=0, return_counts=True)
    order = np.lexsort([*rows.T[::-1], -images])
    label, first, second, kind = rows[order].T
    return FLIPS.frame(
        {
            "label": names[label],
            "first": names[first],
            "second": names[second],
            "kind": np.array(KINDS, dtype=object)[kind],
            "images": images[order],
        }
    )


def class_table(pairing: Pairing, confidence: float) -> pd.DataFrame:
    """A row for every class with an image."""
    size, label = len(pairing.class_names), pairing.label

    def count(chosen: Bool[ndarray, " image"]) -> Int[ndarray, " category"]:
        return np.bincount(label[chosen], minlength=size)

    category = np.flatnonzero(count(pairing.labeled))
    first, second = pairing.right
    groups = (pairing.labeled, first, second, second & ~first, first & ~second)
    images, right_first, right_second, fixed, broken = (count(group)[category] for group in groups)
    p = mcnemar(fixed, broken)
    table = CLASSES.frame(
        {
            "class_name": pairing.class_names[category],
            "images": images,
            **share_columns("first", right_first, images, confidence),
            **share_columns("second", right_second, images, confidence),
            "difference": ratio(fixed - broken, images),
            **interval_columns("difference_", paired_share_interval(fixed, broken, images, confidence)),
            "fixed": fixed,
            "broken": broken,
            "p": p,
            "p_adjusted": adjusted(p),
        }
    )
    return table.sort_values("difference", kind="stable", ignore_index=True)


def share_columns(name: str, hits: Array, trials: Array, confidence: float) -> dict[str, Array]:
    """Columns of a share and its interval."""
    return {name: ratio(hits, trials), **interval_columns(f"{name}_", share_interval(hits, trials, confidence))}


def _names(pairing: Pairing) -> Array:
    return np.array([*pairing.class_names, ""], dtype=object)  # -1 is the last
