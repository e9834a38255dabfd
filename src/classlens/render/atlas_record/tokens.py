"""Image tokens of records, which pages show as crops of photos."""

from __future__ import annotations

from typing import Any, NamedTuple

from classlens.render.atlas_record.rows import Row

TOKEN_COLUMNS = ("image", "image_index", "row", "column")


class TokenPlace(NamedTuple):
    """An image token: the index of its image in the store, its row and its column."""

    image: int
    row: int
    column: int


def token_place(row: Row) -> TokenPlace:
    return TokenPlace(row["image_index"], row["row"], row["column"])


def with_class_names(row: Row, names: Any) -> Row:
    """The row with names of label and prediction in the place of indices; None without a label."""
    label, prediction = row.pop("label"), row.pop("prediction")
    return {**row, "label": names[label] if label >= 0 else None, "prediction": names[prediction]}
