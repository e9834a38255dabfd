"""``hf:NAME``: a data set of the Hugging Face hub, or a folder that ``datasets`` saved."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Any

from PIL import Image

from classlens.data.columns import label_column
from classlens.data.dataset import ClassName, Dataset
from classlens.data.layout import Layout
from classlens.errors import ClasslensError, cause, suggestion
from classlens.models.images import open_bytes, open_picture, read_pictures

_PREFERRED = ("validation", "valid", "test", "train")


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of a table; images are decoded on demand."""

    table: Any
    column: str
    names: tuple[str, ...]
    version: int
    """The library's fingerprint of the table; it changes with any cell."""
    has_masks: bool = False

    def picture(self, position: int) -> Image.Image:
        cell = self.table[position][self.column]
        name = self.names[position]
        if isinstance(cell, dict) and cell.get("bytes"):
            return open_bytes(cell["bytes"], name).image
        try:
            if isinstance(cell, dict):
                return open_picture(cell["path"]).image
            cell.load()
            return read_pictures(cell)[0].image
        except Exception as error:  # on a damaged image, Pillow's readers let out almost any kind of exception
            raise ClasslensError(f"image {name!r} cannot be read ({cause(error)}): expected a whole image") from None

    def masks(self, position: int) -> tuple[None, None]:
        return None, None

    def content(self, position: int) -> int:
        return self.version


def read(spec: str, root: str, split: str | None, column: str | None = None) -> Dataset:
    """``hf:owner/name`` or ``hf:owner/name@config``; the default split is validation, else test, else train."""
    try:
        import datasets as library
    except ImportError:
        raise ClasslensError(
            f"data {spec!r} needs the library datasets, which is not installed: pip install 'classlens[huggingface]'"
        ) from None
    name, _, config = root.partition("@")
    try:
        on_disk = any(os.path.isfile(os.path.join(name, file)) for file in ("dataset_dict.json", "state.json"))
        tables = library.load_from_disk(name) if on_disk else library.load_dataset(name, config or None)
    except Exception as error:  # no such name, no network, a broken file: not bounded
        raise ClasslensError(
            f"data {spec!r} is not on this machine and could not be fetched ({cause(error)}): check its name, or "
            "give a folder that save_to_disk wrote"
        ) from None
    chosen = split or (
        next((name for name in _PREFERRED if name in tables), None) if isinstance(tables, dict) else None
    )
    if isinstance(tables, dict):
        if chosen is None:
            raise ClasslensError(f"data {spec!r} needs a split: it has {', '.join(tables)}")
        if chosen not in tables:
            raise ClasslensError(
                f"data {spec!r} has no split {chosen!r}{suggestion(str(chosen), tables)}: it has {', '.join(tables)}"
            )
        table = tables[chosen]
    elif split is not None:
        raise ClasslensError(f"data {spec!r} is one table and has no splits: leave out split {split!r}")
    else:
        table = tables
    return _read_table(spec, chosen, table, library, column)


def _read_table(spec: str, split: str | None, table: Any, library: Any, column: str | None) -> Dataset:
    types = {key: type(feature).__name__ for key, feature in table.features.items()}
    images = [key for key, name in types.items() if name == "Image"]
    labels = [key for key, name in types.items() if name == "ClassLabel"]
    if len(images) != 1:
        raise ClasslensError(
            f"data {spec!r} has {len(images)} columns of images among {', '.join(types)}: expected one; select columns "
            "and save it to disk first"
        )
    if column is None and labels:
        label: str | None = labels[0] if len(labels) == 1 else label_column(spec, labels, None)
    else:
        label = label_column(spec, [key for key, name in types.items() if name in ("ClassLabel", "Value")], column)
    width = max(6, len(str(len(table))))
    names = tuple(f"{split or 'data'}/{index:0{width}}" for index in range(len(table)))
    if label is not None and label not in labels:
        # Numbers or text: their values are the names of the classes, in order.
        values = list(table[label])
        distinct = sorted({value for value in values if value not in (None, -1)})
        classes = tuple(ClassName(str(value)) for value in distinct)
        index = {value: number for number, value in enumerate(distinct)}
        numbers = [index.get(value, -1) for value in values]
    else:
        classes = () if label is None else tuple(ClassName(str(name)) for name in table.features[label].names)
        given = [None] * len(table) if label is None else table[label]
        numbers = [-1 if value is None else int(value) for value in given]
    # Undecoded, so that an error names the damaged image.
    undecoded = table.cast_column(images[0], library.Image(decode=False))
    version = int(hashlib.sha256(str(getattr(table, "_fingerprint", "")).encode()).hexdigest()[:12], 16)
    return Dataset.whole(spec, split, names, numbers, classes, _Rows(undecoded, images[0], names, version))


_ABOUT = "a data set of the Hugging Face hub, or a folder that save_to_disk wrote"
LAYOUT = Layout("Hugging Face", "NAME", _ABOUT, read, read_column=read)
