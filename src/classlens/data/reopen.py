"""The data set of a store, opened again."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from classlens.data.dataset import Dataset
from classlens.data.open_dataset import open_dataset
from classlens.errors import ClasslensError


def reopen(attrs: Mapping[str, Any], data: str | None = None) -> Dataset:
    """The photos that a store with these attributes was measured on, or those of another place.

    ``reopen(open_store("photos.zarr").attrs, "folder:moved")``

    Raises ClasslensError where they cannot be opened.
    """
    spec, split = data or str(attrs["data"]), attrs.get("split") or None
    try:
        return open_dataset(spec, split=split)
    except ClasslensError as error:
        # The photos suffice: classes may stand in a column of another name, and another place may have no splits.
        for other in (split, None) if data is not None and split is not None else (split,):
            for column in (None, "none"):
                with suppress(ClasslensError):
                    return open_dataset(spec, split=other, label_column=column)
        if data is not None:
            raise
        raise ClasslensError(
            f"the photos of the store cannot be opened ({error}): give their place with --data"
        ) from None
