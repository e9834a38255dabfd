"""``hf:NAME``: a data set of the Hugging Face hub, or a folder that ``datasets`` saved."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass
from typing import Any

from PIL import Image

from classlens.data.dataset import ClassName, Dataset, dataset
from classlens.errors import ClasslensError, cause, suggestion
from classlens.models.images import open_picture, read_pictures

_PREFERRED = ("validation", "valid", "test", "train")


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of a table whose images are decoded when they are asked for."""

    table: Any
    column: str
    names: tuple[str, ...]
    version: int
    """Of the table, as the library counts it: it changes with any cell."""
    has_masks: bool = False

    def picture(self, place: int) -> Image.Image:
        cell = self.table[place][self.column]
        name = self.names[place]
        try:
            if isinstance(cell, dict):
                image = Image.open(io.BytesIO(cell["bytes"])) if cell.get("bytes") else open_picture(cell["path"]).image
            else:
                image = cell
            image.load()
            return read_pictures(image)[0].image
        except Exception as error:  # on a damaged image, Pillow's readers let out almost any kind of exception
            raise ClasslensError(f"image {name!r} cannot be read ({cause(error)}): expected a whole image") from None

    def mask(self, place: int) -> None:
        return None

    def ignored(self, place: int) -> None:
        return None

    def size(self, place: int) -> int:
        return self.version


def read(spec: str, root: str, split: str | None) -> Dataset:
    """``hf:owner/name`` or ``hf:owner/name@config``; a split when one is asked for, else validation or test."""
    try:
        import datasets as library
    except ImportError:
        raise ClasslensError(
            f"data {spec!r} needs the library datasets, which is not installed: pip install 'classlens[huggingface]'"
        ) from None
    name, _, config = root.partition("@")
    try:
        saved = any(os.path.isfile(os.path.join(name, file)) for file in ("dataset_dict.json", "state.json"))
        whole = library.load_from_disk(name) if saved else library.load_dataset(name, config or None)
    except Exception as error:  # no such name, no network, a broken file: not bounded
        raise ClasslensError(
            f"data {spec!r} is not on this machine and could not be fetched ({cause(error)}): check its name, or "
            "give a folder that save_to_disk wrote"
        ) from None
    chosen = split or (next((each for each in _PREFERRED if each in whole), None) if isinstance(whole, dict) else None)
    if isinstance(whole, dict):
        if chosen is None:
            raise ClasslensError(f"data {spec!r} needs a split: it has {', '.join(whole)}")
        if chosen not in whole:
            raise ClasslensError(
                f"data {spec!r} has no split {chosen!r}{suggestion(str(chosen), whole)}: it has {', '.join(whole)}"
            )
        table = whole[chosen]
    elif split is not None:
        raise ClasslensError(f"data {spec!r} is one table and has no splits: leave out split {split!r}")
    else:
        table = whole
    return _of_table(spec, chosen, table, library)


def _of_table(spec: str, split: str | None, table: Any, library: Any) -> Dataset:
    kinds = {key: type(feature).__name__ for key, feature in table.features.items()}
    images = [key for key, kind in kinds.items() if kind == "Image"]
    labels = [key for key, kind in kinds.items() if kind == "ClassLabel"]
    if len(images) != 1:
        raise ClasslensError(
            f"data {spec!r} has {len(images)} columns of images among {', '.join(kinds)}: expected one; select columns "
            "and save it to disk first"
        )
    label = "label" if "label" in labels else labels[0] if len(labels) == 1 else None
    if label is None and labels:
        raise ClasslensError(f"data {spec!r} has several class columns ({', '.join(labels)}): keep one of them")
    width = max(6, len(str(len(table))))
    names = tuple(f"{split or 'data'}/{index:0{width}}" for index in range(len(table)))
    classes = () if label is None else tuple(ClassName(str(name)) for name in table.features[label].names)
    numbers = [-1] * len(table) if label is None else [-1 if value is None else int(value) for value in table[label]]
    # Undecoded: a damaged image is then told by its name.
    undecoded = table.cast_column(images[0], library.Image(decode=False))
    version = int(hashlib.sha256(str(getattr(table, "_fingerprint", "")).encode()).hexdigest()[:12], 16)
    return dataset(spec, split, names, numbers, classes, _Rows(undecoded, images[0], names, version))
