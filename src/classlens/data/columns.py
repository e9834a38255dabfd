"""Which column of a table has the classes of its images."""

from __future__ import annotations

from collections.abc import Sequence

from classlens.errors import ClasslensError, suggestion

NAMES = ("label", "class", "category", "target")
NONE = "none"
"""In place of a column: images without labels."""


def label_column(spec: str, columns: Sequence[str], wanted: str | None) -> str | None:
    """The wanted one of the columns beside the images, else the one with a usual name, in upper or lower case.

    None where there are no such columns, or ``NONE`` is wanted. Raises ClasslensError where no column or several have a
    usual name: labels are never passed over.
    """
    listed = ", ".join(columns) or "no other columns"
    if wanted is not None:
        if wanted in columns or wanted == NONE:
            return wanted if wanted in columns else None
        raise ClasslensError(
            f"data {spec!r} has no column {wanted!r}{suggestion(wanted, columns)}: beside the images it has {listed}"
        )
    known = [column for column in columns if column.strip().lower() in NAMES]
    if len(known) > 1:
        raise ClasslensError(
            f"data {spec!r} has several columns of classes ({', '.join(known)}): give one as label_column "
            "(--label-column)"
        )
    if columns and not known:
        raise ClasslensError(
            f"data {spec!r} has the columns {listed}, none of them named {', '.join(NAMES)}: give the one with the "
            f"classes as label_column (--label-column), or {NONE} for images without labels"
        )
    return known[0] if known else None
