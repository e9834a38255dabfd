"""Stored maps as importance, and their notation."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.pixel_maps import cell_means
from classlens.errors import ClasslensError, unknown
from classlens.explain.custom import SIGNS
from classlens.explain.method import MapFunction
from classlens.explain.registry import METHODS, split_method
from classlens.lens.trace import Trace
from classlens.tasks.evaluation.image_batch import ImageBatch
from classlens.tasks.evaluation.map_files import MapArray, MapFolder

_NAME = re.compile(r"[\w-]+(:sign=\w+)?")


@dataclass(frozen=True, eq=False)
class MapImportance:
    """Stored maps of the images of a data set, at their own resolution.

    Args:
        text: name, and sign where it is given.
        source: the maps.
        sign: how their values are ranked.
        without: reasons by index of the image why it has no map; it is left out of tables.
    """

    text: str
    source: MapArray | MapFolder
    sign: str
    without: Mapping[int, str]

    drawn, live, complete = False, False, False

    @property
    def digest(self) -> str:
        return self.source.digest

    def native_maps(self, batch: ImageBatch) -> Sequence[Float[Tensor, "row column"]]:
        """The maps of a batch; zeros for an image without one."""
        empty, channels = torch.zeros(batch.grid, dtype=torch.float64), batch.lens.view.channels
        images = range(batch.first, batch.first + len(batch))
        return [empty if image in self.without else self.map(image, channels) for image in images]

    def map(self, image: int, channels: int) -> Float[Tensor, "row column"]:
        """The map of an image."""
        return SIGNS[self.sign](self.source.map(image, channels))

    def maps(self, batch: ImageBatch) -> Float[Tensor, "image token"]:
        native = batch.native_maps(self)
        assert native is not None, "stored maps have a resolution of their own"
        return torch.cat([cell_means(values[None], batch.grid) for values in native])

    def explain(self, trace: Trace, target: Int[Tensor, " image"]) -> Float[Tensor, "image token"]:
        raise AssertionError("stored maps are of their images only")

    def function(self, image: int, channels: int) -> MapFunction:
        """The map of one image as a function for ``Trace.explain``; ``stored_map`` holds its text and its sign."""
        values = self.source.map(image, channels)

        def stored(model: object, pixels: Tensor, target: Tensor) -> Tensor:
            return values.expand(len(pixels), -1, -1)

        stored.__name__ = self.text.partition(":")[0]
        vars(stored)["stored_map"] = self.text, self.sign
        return stored


def given_maps(
    maps: Mapping[str, Any], images: Sequence[str], channels: int, *, skip_bad: bool
) -> tuple[MapImportance, ...]:
    """Importances from arrays or folders by name, such as ``{"saliency": "maps", "lrp:sign=positive": array}``.

    Every map is read, so that a run does not stop half-way. Raises ClasslensError for an invalid name or that of a
    method, and for a missing or invalid map, unless ``skip_bad`` leaves its image out.
    """
    return tuple(_given(text, values, tuple(images), channels, skip_bad) for text, values in maps.items())


def _given(text: str, values: Any, images: tuple[str, ...], channels: int, skip_bad: bool) -> MapImportance:
    sign = check_map_name(text)
    source: MapArray | MapFolder
    if isinstance(values, str | os.PathLike):
        source = MapFolder(Path(values), images)
    else:
        array = values.detach().cpu().double().numpy() if isinstance(values, Tensor) else np.asarray(values)
        if array.ndim not in (3, 4) or len(array) != len(images):
            raise ClasslensError(
                f"maps {text!r} are an array {list(array.shape)}: expected [image, row, column] of {len(images)} "
                "images, or a folder"
            )
        source = MapArray(text, array)
    without: dict[int, str] = {}
    for image in range(len(images)):
        try:
            source.map(image, channels)
        except ClasslensError as error:
            without[image] = str(error)
            if not skip_bad or len(without) == len(images):
                raise
    return MapImportance(text, source, sign, without)


def check_map_name(text: str) -> str:
    """The sign of a name such as ``lrp:sign=positive``; raises ClasslensError for another one."""
    if not _NAME.fullmatch(text):
        raise ClasslensError(
            f"maps {text!r} need a name of letters, digits, - and _: write NAME=FOLDER, or NAME:sign=absolute=FOLDER"
        )
    name, options = split_method(text)
    if name in METHODS:
        raise ClasslensError(f"maps {name!r} have the name of a method of classlens: give them another, NAME=FOLDER")
    sign = str(options.get("sign", "signed"))
    if sign not in SIGNS:
        raise unknown("sign", sign, SIGNS)
    return sign


def parse_maps(texts: Sequence[str]) -> dict[str, str]:
    """Folders by name, from ``FOLDER`` or ``NAME=FOLDER``; a folder without a name is named as it is."""
    folders: dict[str, str] = {}
    for text in texts:
        named = re.fullmatch(rf"({_NAME.pattern})=(.+)", text)
        if named is None or os.path.isdir(text):
            name, folder = Path(text).resolve().name, text
        else:
            name, folder = named[1], named[3]
        if name in folders:
            raise ClasslensError(f"maps {name!r} were given twice: name each folder, NAME=FOLDER")
        check_map_name(name)
        folders[name] = folder
    return folders
