"""The record of a data layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from classlens.data.dataset import Dataset


def _no_published_sample(dataset: Dataset, per_class: int) -> Dataset | None:
    return None


@dataclass(frozen=True)
class Layout:
    """The arrangement of a kind of data set on disk, or elsewhere.

    Args:
        label: name of the layout in documentation.
        place: what follows the colon of a spec, such as ``ROOT``.
        about: one line for help and documentation.
        read: from spec, root and split to the whole data set, images sorted by name; raises ClasslensError.
        published_sample: the published sample of so many images per class; None where no such sample exists.
        read_column: ``read`` with the column of the classes, or ``"none"`` for images without labels; None for a
            layout without columns.
    """

    label: str
    place: str
    about: str
    read: Callable[[str, str, str | None], Dataset]
    published_sample: Callable[[Dataset, int], Dataset | None] = _no_published_sample
    read_column: Callable[[str, str, str | None, str | None], Dataset] | None = None
