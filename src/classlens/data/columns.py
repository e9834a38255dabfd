"""Which column of a table has the classes of its images."""

from __future__ import annotations

from collections.abc import Sequence

from classlens.errors import ClasslensError

NAMES = ("label", "class", "category", "target")


def label_column(spec: str, columns: Sequence[str]) -> str | None:
    """The column with a usual name, in upper or lower case; raises ClasslensError where several have one."""
    known = [column for column in columns if column.strip().lower() in NAMES]
    if len(known) > 1:
        raise ClasslensError(f"data {spec!r} has several columns of classes ({', '.join(known)}): keep one of them")
    return known[0] if known else None
