"""Two stores of the same images, compared image by image."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from classlens.analysis.experiment import add_holm
from classlens.analysis.image_table import CONTENT
from classlens.analysis.measured_store import MeasuredStore
from classlens.core.arrays import Array
from classlens.core.stats import Statistics, estimate, flip_signs

KEYS = ["first", "second", "measure"]
_FLIPS = [
    "first",
    "second",
    "image",
    "label",
    "prediction_first",
    "confidence_first",
    "prediction_second",
    "confidence_second",
]


def compare(
    stores: Sequence[MeasuredStore], images: pd.DataFrame, statistics: Statistics
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Differences between every two stores with images in common, and the images whose prediction flipped.

    Images are the same where their names are, and the data or, where both stores have it, the content of the image. The
    first table has a row for each measure, and for identifiability a row for each block: the means of both stores, the
    mean difference of an image (second minus first) with its interval, and a two-sided permutation p value. Measures of
    the class of interest take images for which both stores have the same one.
    """
    differences, flips = [], []
    for first, second in combinations(stores, 2):
        both = _join(first, second, images)
        if not both.empty:
            about = {"first": first.model, "second": second.model}
            differences.append(_differences(both, first, second, statistics).assign(**about))
            flips.append(both[both["prediction_first"] != both["prediction_second"]].assign(**about))
    if not differences:
        return pd.DataFrame(), pd.DataFrame()
    table = add_holm(pd.concat(differences, ignore_index=True), KEYS)
    return table[[*KEYS, *table.columns.drop(KEYS)]], pd.concat(flips, ignore_index=True)[_FLIPS]


def _join(first: MeasuredStore, second: MeasuredStore, images: pd.DataFrame) -> pd.DataFrame:
    """The images of both, each with the columns of both."""
    one, other = (images[images["model"] == store.model] for store in (first, second))
    has_content = CONTENT in images and all(bool(part[CONTENT].fillna(0).all()) for part in (one, other))
    if not has_content and first.attrs["data"] != second.attrs["data"]:
        return pd.DataFrame()
    return one.merge(other, on=["image", *([CONTENT] if has_content else [])], suffixes=("_first", "_second")).assign(
        label=lambda table: table["label_first"]
    )


def _differences(
    both: pd.DataFrame, first: MeasuredStore, second: MeasuredStore, statistics: Statistics
) -> pd.DataFrame:
    same = (both["target_first"] == both["target_second"]).to_numpy()
    labeled = (both["label_first"] == both["label_second"]).to_numpy()
    rows: list[tuple[str, float]] = [("correct", np.nan), ("confidence", np.nan)]
    values = [_both(both, "correct", labeled), _both(both, "confidence")]
    if first.blocks == second.blocks and {"commitment_first", "commitment_second"} <= set(both):
        rows.append(("commitment", np.nan))
        values.append(_both(both, "commitment"))
        for block in range(first.blocks):
            ranks = _both(both, f"rank_{block}", same)
            rows.append(("identifiability", block))
            values.append(1 - ranks / np.array([first.num_classes, second.num_classes]))
    pairs = np.stack(values, axis=1)
    flipped = (both["prediction_first"] != both["prediction_second"]).to_numpy(dtype=np.float64)
    difference = np.concatenate([flipped[:, None], pairs[..., 1] - pairs[..., 0]], axis=1)
    means = estimate(difference, statistics)
    counts = np.maximum(means.images[1:, None], 1)
    of_store = np.concatenate([[[np.nan, np.nan]], np.nansum(pairs, axis=0) / counts])
    table = pd.DataFrame([("flipped", np.nan), *rows], columns=["measure", "block"]).assign(
        value_first=of_store[:, 0],
        value_second=of_store[:, 1],
        difference=means.value,
        low=means.low,
        high=means.high,
        p=[np.nan, *flip_signs(difference[:, 1:], statistics, "two-sided")],
        images=means.images,
    )
    return table[table["images"] > 0].reset_index(drop=True)


def _both(both: pd.DataFrame, name: str, allowed: Array | None = None) -> Array:
    """``[image, store]``: values of both stores; NaN where one of them has none."""
    values = both[[f"{name}_first", f"{name}_second"]].to_numpy(dtype=np.float64, copy=True)
    missing = np.isnan(values).any(axis=1)
    if allowed is not None:
        missing |= ~allowed
    values[missing] = np.nan
    return np.asarray(values)
