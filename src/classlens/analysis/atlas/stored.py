"""A store of `classlens measure --attribution`, opened for an atlas: its groups, checked, and its images in batches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Int
from numpy import ndarray

from classlens.analysis.measured_store import MeasuredStore
from classlens.core.arrays import Array
from classlens.errors import ClasslensError
from classlens.store.backend import as_url, open_root, root_attributes
from classlens.store.metadata import SHARD
from classlens.store.open_store import group_names, open_group
from classlens.store.schema import MEASURED, SKIPPED
from classlens.tasks.tokens.attribution.schema import (
    ATTRIBUTION,
    HEAD_MAPS,
    HEAD_TOKENS,
    OF,
    SIDES,
    UNIT_OF,
    UNIT_TOKENS,
    UNIT_VARIABLES,
    UNITS,
    VARIABLES,
)
from classlens.tasks.tokens.conditions.registry import CLEAN
from classlens.tasks.tokens.schema import check_values

LABEL, PREDICTION, MEAN = OF

# Dims of the arrays of each group, floats and whole numbers.
_FLOATS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    ATTRIBUTION: {name: variable.dims for name, variable in VARIABLES.items()},
    UNITS: {"top_unit_contribution": UNIT_VARIABLES["top_unit_contribution"].dims},
    HEAD_TOKENS: {"contribution": ("block", "head", "top")},
    UNIT_TOKENS: {
        "coefficient": ("block", "unit", "top"),
        "active_share": ("block", "unit"),
        "value_score": ("block", "unit", "class_rank"),
        "value_cosine": ("block", "unit", "class_rank"),
    },
    HEAD_MAPS: {"score": ("block", "head", "pair"), "copy_share": ("block", "head")},
}
_WHOLE: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    ATTRIBUTION: {},
    UNITS: {"top_unit": UNIT_VARIABLES["top_unit"].dims},
    HEAD_TOKENS: {"token_image": ("block", "head", "top"), "token": ("block", "head", "top")},
    UNIT_TOKENS: {
        "token_image": ("block", "unit", "top"),
        "token": ("block", "unit", "top"),
        "value_class": ("block", "unit", "class_rank"),
    },
    HEAD_MAPS: {"input_class": ("block", "head", "pair"), "output_class": ("block", "head", "pair")},
}
_LABELS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    ATTRIBUTION: {"of": OF, "side": SIDES},
    UNITS: {"unit_of": UNIT_OF},
}
"""Coordinates of text."""

_MAX_VALUES = 2**20
"""Values of one variable that are read at once."""


class NothingAttributed(ClasslensError):
    """A store whose images have no attribution yet, as at the start of a run that adds it."""


class AtlasStore:
    """One store with attribution.

    Images are those that were measured under ``clean`` and in ``attribution``. Their class is the label; in a store
    without any label it is the prediction.
    """

    def __init__(self, store: str | os.PathLike[str]) -> None:
        self.url = as_url(store)
        self.attrs: dict[str, Any] = root_attributes(open_root(self.url))
        command = self.attrs.get("command", "measure")
        if command != "measure":
            raise ClasslensError(
                f"store {self.url!r} is one of `classlens {command}`: give a store of `classlens measure --attribution`"
            )
        measured = MeasuredStore(self.url)
        clean = measured.group(CLEAN)
        assert clean is not None, "a measured store has it"
        self.clean: xr.Dataset = clean
        self.blocks, self.total_images = measured.blocks, measured.total_images
        self.num_classes, self.class_names = measured.num_classes, measured.class_names()
        self._names = group_names(self.url)
        if ATTRIBUTION not in self._names:
            raise ClasslensError(
                f"store {self.url!r} has no attribution, from which an atlas is made: measure it with --attribution"
            )
        self._groups: dict[str, xr.Dataset] = {}
        status = np.stack([self._status(self.clean), self._status(self.group(ATTRIBUTION))])
        self.images = np.flatnonzero((status == MEASURED).all(axis=0))
        self.skipped = int((status == SKIPPED).any(axis=0).sum())
        if not len(self.images):
            raise NothingAttributed(
                f"store {self.url!r} has no image with an attribution yet: let `classlens measure --attribution` go on"
            )
        self.label, self.prediction, self.target = (self._classes(name) for name in (LABEL, PREDICTION, "target"))
        self.by = LABEL if bool((self.label[self.images] >= 0).any()) else PREDICTION
        """Which class of an image counts, in tables that go by class."""
        self.category = self.label if self.by == LABEL else self.prediction
        self.right = self.label == self.prediction
        self.image_tokens = measured.positions("image")

    def has(self, name: str) -> bool:
        """Whether a group is there."""
        return name in self._names

    def group(self, name: str) -> xr.Dataset:
        """A group of the atlas; raises ClasslensError for one that is not as `measure` writes it."""
        if name not in self._groups:
            data = open_group(self.url, name)
            self._check(name, data)
            self._groups[name] = data
        return self._groups[name]

    def whole(self, name: str, variable: str, high: int) -> Array:
        """Whole numbers of a group without images, from -1 to below ``high``."""
        return self.within(variable, np.asarray(self.group(name)[variable].values), high)

    def within(self, variable: str, values: Array, high: int) -> Array:
        """The values; raises ClasslensError for one that is no index of what it counts."""
        if values.size and not -1 <= values.min() <= values.max() < high:
            raise self._other_form(f"{variable!r} has values beyond {high - 1}")
        return values

    @cached_property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the image tokens."""
        rows, columns = (self.coordinate(name)[self.image_tokens] for name in ("row", "column"))
        return int(rows.max()) + 1, int(columns.max()) + 1

    @cached_property
    def attributed(self) -> int:
        """Number of images whose contributions are measured."""
        return int((self.group(ATTRIBUTION)["measured"].values == MEASURED).sum())

    @cached_property
    def units_per_block(self) -> int:
        """Hidden units of the MLP of a block, by the group ``units``."""
        count = self.group(UNITS).attrs.get("units_per_block")
        if not isinstance(count, int | np.integer) or count < 1:
            raise self._other_form("its units have no number of units_per_block")
        return int(count)

    @cached_property
    def image_names(self) -> Array:
        """Names of all images of the store."""
        return np.asarray(self.clean["image"].values, dtype=object)

    def coordinate(self, name: str) -> Array:
        """``row`` or ``column`` of every token."""
        if name not in self.clean.coords or self.clean[name].dims != ("token",):
            raise self._other_form(f"{name!r} is missing or of another form")
        return np.asarray(self.clean[name].values)

    def token_columns(self, image: Array, token: Array) -> dict[str, Array]:
        """Columns of tables that show tokens of images."""
        return {
            "image": self.image_names[image],
            "image_index": image,
            "token": token,
            "row": self.coordinate("row")[token],
            "column": self.coordinate("column")[token],
        }

    def batches(self) -> Iterator[AtlasBatch]:
        """The images, in order, in batches of whole shards."""
        sizes = [len(self.clean["token"])]
        for name in (ATTRIBUTION, UNITS):
            if self.has(name):
                sizes += [array[:1].size for array in self.group(name).data_vars.values() if "image" in array.dims]
        step = max(1, _MAX_VALUES // (max(sizes) * SHARD)) * SHARD
        for start in range(0, self.total_images, step):
            stop = min(start + step, self.total_images)
            images = self.images[(self.images >= start) & (self.images < stop)]
            if len(images):
                yield AtlasBatch(self, images, slice(start, stop))

    def _status(self, data: xr.Dataset) -> Array:
        return np.asarray(data["measured"].values)

    def _classes(self, name: str) -> Int[ndarray, " image"]:
        values = np.asarray(self.clean[name].values)
        check_values(self.url, name, values, self.num_classes)
        return values.astype(np.int64)

    def _check(self, name: str, data: xr.Dataset) -> None:
        for variables, kind in ((_FLOATS[name], "f"), (_WHOLE[name], "i")):
            for variable, dims in variables.items():
                if variable not in data or data[variable].dims != dims or data[variable].dtype.kind != kind:
                    raise self._other_form(f"{variable!r} of {name!r} is missing or of another form")
        for dim, labels in _LABELS.get(name, {}).items():
            if dim not in data.coords or tuple(map(str, data[dim].values)) != labels:
                raise self._other_form(f"{dim!r} of {name!r} is not {', '.join(labels)}")
        sizes = {"image": self.total_images, "block": self.blocks}
        if any(data.sizes.get(dim, size) != size for dim, size in sizes.items()):
            raise self._other_form(f"{name!r} has other images or blocks than {CLEAN!r}")
        if "image" in data.dims and ("measured" not in data or data["measured"].dims != ("image",)):
            raise self._other_form(f"'measured' of {name!r} is missing or of another form")

    def _other_form(self, reason: str) -> ClasslensError:
        return ClasslensError(
            f"store {self.url!r} is not used, since {reason}: expected what `classlens measure --attribution` writes; "
            "measure it anew"
        )


@dataclass(frozen=True, eq=False)
class AtlasBatch:
    """Images of a store among consecutive ones.

    Args:
        store: the store.
        images: their indices in the store.
        span: the consecutive images among which they are.
    """

    store: AtlasStore
    images: Int[ndarray, " image"]
    span: slice

    def values(self, group: str, name: str, **index: int) -> Array:
        """A variable of these images; ``index`` chooses along other dims, by position."""
        data = self.store.clean if group == CLEAN else self.store.group(group)
        values = np.asarray(data[name].isel({"image": self.span, **index}).values)
        return np.asarray(values[self.images - self.span.start])

    @property
    def category(self) -> Int[ndarray, " image"]:
        """The class of each image; -1 without."""
        return np.asarray(self.store.category[self.images])

    @property
    def outcome(self) -> Int[ndarray, " image"]:
        """0 for a right prediction, 1 for a wrong one, 2 for an image without a label."""
        label, right = self.store.label[self.images], self.store.right[self.images]
        return np.where(label < 0, 2, np.where(right, 0, 1))
