"""Tables of measures of all images, and of the decision after each depth."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from classlens.analysis.atlas.tables import interval_columns
from classlens.analysis.comparison.pairing import Pairing
from classlens.analysis.comparison.predictions import share_columns
from classlens.analysis.comparison.tables import SUMMARY, TRAJECTORY
from classlens.core.arrays import Array
from classlens.core.paired import calibration_error, mcnemar
from classlens.core.stats import Statistics, bootstrap, estimate

ACCURACY, CALIBRATION = "accuracy", "calibration_error"
MEASURES: Mapping[str, str] = {
    ACCURACY: "share of labeled images whose prediction is the label",
    CALIBRATION: "gap between confidence and accuracy over 15 bins of equal width; 0 is best",
    "confidence": "mean probability of the prediction",
    "entropy": "mean entropy of the output, in nats",
    "margin": "mean of the largest logit minus the second",
    "commitment": "mean depth from which on the prediction stays, as a share of all blocks",
    "tokens_on_top": "mean share of the image tokens with the class of interest, the same in both, on top after the "
    "last block",
}
"""The rows of ``summary``, with their meaning."""


def summary_table(pairing: Pairing, statistics: Statistics) -> pd.DataFrame:
    """A row for each measure that both stores have."""
    known = pairing.labeled & np.isfinite(pairing.first.confidence) & np.isfinite(pairing.second.confidence)
    rows = [_accuracy(pairing, statistics)] if pairing.labeled.any() else []
    rows += [_calibration(pairing, known, statistics)] if known.any() else []
    rows += _means(pairing, statistics)
    columns = {name: [row.get(name, np.nan) for row in rows] for name in SUMMARY.columns}
    return SUMMARY.frame(columns)


def _accuracy(pairing: Pairing, statistics: Statistics) -> dict[str, object]:
    first, second = (right[pairing.labeled] for right in pairing.right)
    images = len(first)
    difference = estimate((second.astype(np.float64) - first)[:, None], statistics)
    shares: dict[str, Array] = {}
    for name, right in (("first", first), ("second", second)):
        shares |= share_columns(name, right.sum(keepdims=True), np.array([images]), statistics.confidence)
    return {
        "measure": ACCURACY,
        "images": images,
        **{name: float(value[0]) for name, value in shares.items()},
        **_difference(difference.value[0], difference.low[0], difference.high[0]),
        "p": float(mcnemar(np.array([(~first & second).sum()]), np.array([(first & ~second).sum()]))[0]),
    }


def _calibration(pairing: Pairing, known: Array, statistics: Statistics) -> dict[str, object]:
    sides = [
        calibration_error(facts.confidence[known], right[known])
        for facts, right in zip((pairing.first, pairing.second), pairing.right, strict=True)
    ]

    def errors(counts: Array) -> Array:
        first, second = (statistic(counts) for statistic in sides)
        return np.concatenate([first, second, second - first], axis=1)

    images = int(known.sum())
    return _row(CALIBRATION, images, *bootstrap(errors, images, statistics))


def _means(pairing: Pairing, statistics: Statistics) -> list[dict[str, object]]:
    """Rows of plain means over the images for which both have a value."""
    values = {
        name: np.stack([getattr(facts, name) for facts in (pairing.first, pairing.second)], axis=1)
        for name in ("confidence", "entropy", "margin", "commitment", "tokens_on_top")
    }
    values["tokens_on_top"][pairing.first.target != pairing.second.target] = np.nan
    for pairs in values.values():
        pairs[np.isnan(pairs).any(axis=1)] = np.nan
    pairs = np.stack(list(values.values()), axis=1)
    triples = np.concatenate([pairs, pairs[..., 1:] - pairs[..., :1]], axis=2)
    columns = [part.reshape(len(values), 3) for part in estimate(triples.reshape(len(pairs), -1), statistics)]
    return [
        _row(name, int(images[0]), value, low, high)
        for name, value, low, high, images in zip(values, *columns, strict=True)
        if images[0]
    ]


def _row(name: str, images: int, value: Array, low: Array, high: Array) -> dict[str, object]:
    """A row from first, second and difference with their intervals."""
    sides = {
        f"{side}{ending}": float(values[i])
        for i, side in enumerate(("first", "second"))
        for ending, values in (("", value), ("_low", low), ("_high", high))
    }
    return {"measure": name, "images": images, **sides, **_difference(value[2], low[2], high[2])}


def _difference(value: float, low: float, high: float) -> dict[str, object]:
    return {"difference": float(value), "difference_low": float(low), "difference_high": float(high)}


def trajectory_table(pairing: Pairing, statistics: Statistics) -> pd.DataFrame:
    """A row for each depth: one of both where they have the same blocks, else one of each."""
    labeled = pairing.labeled
    label = pairing.label[labeled, None]
    right = [facts.top[labeled] == label for facts in (pairing.first, pairing.second)]
    if not len(label) or not right[0].shape[1] or not right[1].shape[1]:
        return TRAJECTORY.frame()
    if right[0].shape == right[1].shape:
        apart = estimate(right[1].astype(np.float64) - right[0], statistics)
        columns = {
            **_depths(right[0]),
            **_shares("first", right[0], statistics),
            **_shares("second", right[1], statistics),
        }
        columns |= {"difference": apart.value, **interval_columns("difference_", (apart.low, apart.high))}
        return TRAJECTORY.frame(columns)
    parts = []
    for name, values in zip(("first", "second"), right, strict=True):
        columns = {**_depths(values), **_shares(name, values, statistics)}
        missing = np.full(values.shape[1], np.nan)
        parts.append(TRAJECTORY.frame({key: columns.get(key, missing) for key in TRAJECTORY.columns}))
    return pd.concat(parts).sort_values("depth", kind="stable", ignore_index=True)


def _depths(right: Array) -> dict[str, Array]:
    images, depths = right.shape
    block = np.arange(depths)
    return {"depth": block / max(depths - 1, 1), "block": block, "images": np.full(depths, images)}


def _shares(name: str, right: Array, statistics: Statistics) -> dict[str, Array]:
    return share_columns(name, right.sum(axis=0), np.full(right.shape[1], len(right)), statistics.confidence)
