"""The record of a comparison: what its page shows, in types of JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from classlens.analysis.comparison.compare import Comparison
from classlens.analysis.comparison.measures import MEASURES
from classlens.analysis.comparison.tables import SAME

Record = dict[str, Any]

LABELS: Mapping[str, str] = {
    "accuracy": "accuracy",
    "calibration_error": "calibration error",
    "confidence": "confidence",
    "entropy": "entropy",
    "margin": "margin",
    "commitment": "commitment",
    "tokens_on_top": "tokens on top",
}
UNITS: Mapping[str, str] = {"entropy": "nats", "margin": "logits"}
"""Units of measures that are no shares."""
MOST_FLIPS = 10_000
"""Images that the page lists."""
_DIGITS = 6


def comparison_record(comparison: Comparison) -> Record:
    """Tables as lists of rows, numbers with six digits and None in the place of those that are not finite.

    ``comparison_record(classlens.compare("before.zarr", "after.zarr"))``

    Images are those whose prediction flipped, up to ``MOST_FLIPS`` of them, with classes as indices of ``class_names``.
    """
    attrs = comparison.attrs
    flipped = comparison.images[comparison.images["kind"] != SAME].head(MOST_FLIPS)
    texts = [flipped[name] for name in ("label", "prediction_first", "prediction_second")]
    class_names = sorted(
        {str(name) for column in texts for name in column if name} | {*comparison.classes["class_name"]}
    )
    index_of = {name: index for index, name in enumerate(class_names)} | {"": None}
    most = dict(list(comparison.head_classes.groupby(["block", "head"], sort=False)))
    return {
        **{key: attrs[key] for key in ("first", "second", "images", "matched_by", "labeled_images", "other_labels")},
        **{key: attrs[key] for key in ("common_classes", "broken", "fixed", "changed", "same", "missing")},
        "confidence": attrs["statistics"]["confidence"],
        "class_names": class_names,
        "summary": [
            {
                **row,
                "label": LABELS[row["measure"]],
                "about": MEASURES[row["measure"]],
                "unit": UNITS.get(row["measure"]),
            }
            for row in rows_of(comparison.summary)
        ],
        "classes": rows_of(comparison.classes),
        "flips": [
            {**row, **{key: index_of[row[key]] for key in ("label", "first", "second")}}
            for row in rows_of(comparison.flips)
        ],
        "trajectory": rows_of(comparison.trajectory),
        "heads": [
            {**row, "classes": rows_of(most[key].drop(columns=["sublayer", "block", "head"]) if key in most else None)}
            for row in rows_of(comparison.heads)
            for key in [(row["block"], row["head"])]
        ],
        "listed": [
            {
                **{key: row[key] for key in ("image", "index_first", "index_second", "kind")},
                "image_second": None if row["image"] == row["image_second"] else row["image_second"],
                **{key: index_of[row[key]] for key in ("label", "prediction_first", "prediction_second")},
                **{
                    f"{name}_{side}": row[f"{name}_{side}"]
                    for name in ("confidence", "commitment")
                    for side in ("first", "second")
                },
            }
            for row in rows_of(flipped)
        ],
    }


def rows_of(table: pd.DataFrame | None) -> list[Record]:
    """The rows of a table, in types of JSON."""
    if table is None:
        return []
    return [{str(key): _plain(value) for key, value in row.items()} for row in table.to_dict("records")]


def _plain(value: Any) -> Any:
    if not isinstance(value, float):
        return int(value) if hasattr(value, "item") else value
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
