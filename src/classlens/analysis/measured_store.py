"""A store of `classlens measure`, opened for analysis: its requirements, and its images batch by batch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from classlens.core.arrays import Array
from classlens.errors import ClasslensError
from classlens.store.backend import as_url
from classlens.store.metadata import SHARD
from classlens.store.open_store import group_names, open_group
from classlens.store.schema import MEASURED
from classlens.tasks.tokens.conditions.registry import CLEAN
from classlens.tasks.tokens.schema import (
    GROUP_TRAJECTORY,
    Axes,
    check_values,
    require_condition,
    require_parameters,
)

TokenGroup = Literal["cls", "image", "all"]

_MAX_VALUES = 2**22
"""Values of one variable that are read at once."""


@dataclass(frozen=True)
class Requirement:
    """Data that an experiment reads. Where a store lacks it, the reason names the option that measures it.

    ``optional``: the experiment runs without, and the part that is left out is reported.
    """

    condition: str = CLEAN
    any_condition: tuple[str, ...] = ()
    """Conditions of which one is enough."""
    sites: tuple[str, ...] = ()
    memories: bool = False
    masks: bool = False
    parameters: bool = False
    twin_parameters: bool = False
    cls: bool = False
    labels: bool = False
    trajectory: bool = False
    norms: bool = False
    optional: bool = False


class MeasuredStore:
    """One store of `classlens measure`.

    Images without a measurement under ``clean`` (not reached yet, or skipped) are left out of everything.
    """

    def __init__(self, store: str | os.PathLike[str]) -> None:
        self.url = as_url(store)
        self._names = group_names(self.url)
        self._groups: dict[str, xr.Dataset] = {}
        self._axes: Axes | None = None
        clean = self.group(CLEAN)
        if clean is None and any("." in name for name in self._names):  # groups METRIC.METHOD of `classlens evaluate`
            raise ClasslensError(
                f"store {self.url!r} is one of `classlens evaluate`, whose tables stand in results beside it: "
                "give a store of `classlens measure`"
            )
        if clean is None:
            raise ClasslensError(
                f"store {self.url!r} has no condition 'clean', the baseline of all others: measure it with "
                "--conditions clean"
            )
        self.attrs: dict[str, Any] = dict(clean.attrs)
        self.model = str(self.attrs.get("model", "model"))
        self.num_classes = int(self.attrs["num_classes"])
        self.blocks = clean.sizes["block"]
        self.total_images = clean.sizes["image"]
        kinds = clean["token_kind"].values.astype(object)
        self._positions = {
            "cls": np.flatnonzero(kinds == "cls"),
            "image": np.flatnonzero(kinds == "image"),
            "all": np.arange(len(kinds)),
        }
        self._measured = np.flatnonzero(clean["measured"].values == MEASURED)
        if not len(self._measured):
            raise ClasslensError(
                f"store {self.url!r} has no measured image yet: let `classlens measure` go on, or give another store"
            )

    @property
    def images(self) -> int:
        """Number of measured images."""
        return len(self._measured)

    @property
    def measured_images(self) -> Int[ndarray, " images"]:
        """Positions of the measured images in the store."""
        return self._measured

    @property
    def stem(self) -> str:
        """Name of the store's folder, without its ending."""
        return PurePosixPath(self.url.rstrip("/")).stem

    def group(self, name: str) -> xr.Dataset | None:
        """A condition or ``parameters``; None where it was not measured."""
        if not self.has(name):
            return None
        if name not in self._groups:
            group = open_group(self.url, name)
            self._check(name, group)
            self._groups[name] = group
        return self._groups[name]

    def _check(self, name: str, group: xr.Dataset) -> None:
        """Raises ClasslensError for a group that is not as `measure` writes it."""
        if name == "parameters":
            assert self._axes is not None, "clean comes first"
            require_parameters(self.url, group, self._axes)
            return
        axes = require_condition(self.url, group)
        if self._axes not in (None, axes):
            raise ClasslensError(
                f"store {self.url!r} has other images, tokens or blocks under {name!r} than under {CLEAN!r}: measure "
                "it anew"
            )
        self._axes = axes

    def has(self, condition: str) -> bool:
        """Whether a condition was measured."""
        return condition in self._names

    def positions(self, group: TokenGroup) -> Int[ndarray, " tokens"]:
        """Positions of ``[CLS]``, of the image tokens, or of all tokens in the sequence."""
        return self._positions[group]

    @property
    def token_groups(self) -> tuple[TokenGroup, ...]:
        """The groups that every table tells apart; without ``cls`` for a model that has no ``[CLS]``."""
        return ("cls", "image") if len(self._positions["cls"]) else ("image",)

    @property
    def first_block(self) -> int:
        """The first block with a known input: 0, or 1 where the embeddings were not measured."""
        return 0 if "embed" in self.attrs["sites"] else 1

    def class_names(self) -> list[str]:
        """Names of all classes of the model."""
        return [str(name) for name in self._groups[CLEAN]["class_name"].values]

    @property
    def label_groups(self) -> int:
        """Number of groups of classes whose trajectories were measured as well, if any."""
        return 0 if self._axes is None else self._axes.label_groups

    def group_of(self, classes: Int[ndarray, " images"]) -> Int[ndarray, " images"]:
        """The group of each class; -1 for class -1 and for a class of none."""
        group_of_class = np.asarray(self._groups[CLEAN]["class_group"].values)
        return np.where(classes < 0, -1, group_of_class[classes])

    def lacks(self, need: Requirement) -> str | None:
        """Why a requirement is not met, and the option that measures it; None where it is met."""
        group = self.group(need.condition)
        if group is None:
            return f"condition {need.condition} was not measured: add --conditions {need.condition}"
        if need.any_condition and not any(self.has(name) for name in need.any_condition):
            names = " nor ".join(need.any_condition)
            return f"neither condition {names} was measured: add --conditions {','.join(need.any_condition)}"
        sites = [site for site in need.sites if site not in self.attrs["sites"]]
        if sites == ["resid_mid"] and not self._can_have_mid():
            return "blocks with parallel branches have no resid_mid"
        if sites:
            return f"site {sites[0]} was not measured: measure anew with --sites that name it, or without --sites"
        if need.memories and not self.attrs["memories"]:
            return "memories were not measured: measure anew with --memories"
        parameters = self.group("parameters")
        if need.parameters and parameters is None:
            return "the parameters were not measured: measure anew with --memories"
        if need.twin_parameters and (parameters is None or "random_init" not in parameters["weights"].values):
            return "the random twin's parameters were not measured: measure a model by its name with --memories"
        if need.masks and not self._has_masks(group):
            return (
                "the images have no masks: measure them with --masks, or data that has masks, such as imagenet-s:ROOT"
            )
        if need.cls and not len(self._positions["cls"]):
            return "the model has no [CLS] token"
        if need.trajectory and (self._axes is None or not self._axes.trajectory):
            return "an earlier version measured the store, without decision trajectories: measure anew"
        if need.norms and (self._axes is None or not self._axes.norms):
            return "an earlier version measured the store, without token norms: measure anew"
        if need.labels and not bool((group["label"].values >= 0).any()):
            return "the images have no labels: measure a data set that has them"
        return None

    def _can_have_mid(self) -> bool:
        if "has_mid" in self.attrs:
            return bool(self.attrs["has_mid"])
        # With all other sites in the store, the model lacks this one. With fewer, either may be the case.
        return not {"attn_out", "mlp_out", "resid_post"} <= set(self.attrs["sites"])

    def _has_masks(self, group: xr.Dataset) -> bool:
        return any(
            bool((group["class_token"].isel(image=slice(start, start + SHARD)).values >= 0).any())
            for start in range(0, self.total_images, SHARD)
        )

    def batches(self) -> Iterator[StoredBatch]:
        """The measured images, in order, in batches of whole shards."""
        clean = self._groups[CLEAN]
        values_per_image = int(np.prod([clean.sizes.get(dim, 1) for dim in ("site", "block", "token")]))
        step = max(1, _MAX_VALUES // (values_per_image * SHARD)) * SHARD
        for start in range(0, self.total_images, step):
            images = self._measured[(self._measured >= start) & (self._measured < start + step)]
            if len(images):
                yield StoredBatch(self, start, min(step, self.total_images - start), images - start)


class StoredBatch:
    """Measured images among ``count`` consecutive ones of a store; each variable is read once, at its first use."""

    def __init__(self, store: MeasuredStore, start: int, count: int, chosen: Int[ndarray, " images"]) -> None:
        self.store = store
        self.images = len(chosen)
        self._slice, self._chosen = slice(start, start + count), chosen
        self._arrays: dict[tuple[str, str], Array] = {}

    def values(self, name: str, condition: str = CLEAN, **coords: str) -> Array:
        """A variable of these images, such as ``values("rank", site="resid_post")``: image, then block, then token."""
        group = self.store.group(condition)
        if group is None:
            raise AssertionError(f"condition {condition} was not measured: add it to the needs of the experiment")
        key = (condition, name)
        if key not in self._arrays:
            values = np.asarray(group[name].isel(image=self._slice).values)
            of_groups = name.startswith(GROUP_TRAJECTORY)
            check_values(self.store.url, name, values, self.store.label_groups if of_groups else self.store.num_classes)
            self._arrays[key] = values[self._chosen]
        values, dims = self._arrays[key], list(group[name].dims)
        for dim, label in coords.items():
            index = [str(coord) for coord in group[dim].values].index(label)
            values = values.take(index, axis=dims.index(dim))
            dims.remove(dim)
        return values

    def has(self, name: str) -> bool:
        """Whether the store has a variable, which stores of earlier versions may lack."""
        group = self.store.group(CLEAN)
        return group is not None and name in group

    @property
    def indices(self) -> Int[ndarray, " images"]:
        """Positions of these images in the store."""
        return np.asarray(self._slice.start + self._chosen)

    def last_block(self, name: str, site: str) -> Array:
        """A fact of a site after the last block, ``[image, token]``; no other site and block is read."""
        group = self.store.group(CLEAN)
        assert group is not None, "every store has the condition clean"
        position = [str(label) for label in group["site"].values].index(site)
        values = np.asarray(group[name].isel(image=self._slice, site=position, block=-1).values)
        check_values(self.store.url, name, values, self.store.num_classes)
        return np.asarray(values[self._chosen])

    def names(self) -> Array:
        """Names of these images."""
        group = self.store.group(CLEAN)
        assert group is not None, "every store has the condition clean"
        return np.asarray(group["image"].values[self._slice][self._chosen], dtype=object)

    def block_input(self, name: str, condition: str = CLEAN) -> Array:
        """A fact of the residual stream that enters each block, from block ``store.first_block`` on."""
        before = self.values(name, condition, site="resid_post")[:, :-1]
        if self.store.first_block:
            return before
        return np.concatenate([self.values(f"embed_{name}", condition)[:, None], before], axis=1)

    def block_site(self, name: str, site: str, condition: str = CLEAN) -> Array:
        """A fact of a site, for the same blocks as ``block_input``."""
        return self.values(name, condition, site=site)[:, self.store.first_block :]

    def measured(self, condition: str) -> Bool[ndarray, " images"]:
        """Which of these images were measured under a condition as well."""
        return np.asarray(self.values("measured", condition) == MEASURED)

    def token_mean(
        self,
        values: Array,
        tokens: TokenGroup | Int[ndarray, " tokens"] = "image",
        condition: str = CLEAN,
    ) -> Float[ndarray, "images blocks"]:
        """Mean over a group or positions of tokens, for each image; NaN where the condition was not measured."""
        positions = self.store.positions(tokens) if isinstance(tokens, str) else tokens
        means = values[..., positions].mean(axis=-1, dtype=np.float64)
        means[~self.measured(condition)] = np.nan
        return np.asarray(means)


def open_measured_stores(
    stores: Sequence[str | os.PathLike[str]] | Mapping[str, str | os.PathLike[str]],
) -> list[MeasuredStore]:
    """Stores under distinct names: those of a mapping, else the model's, with the store's where they share a model."""
    if not stores:
        raise ClasslensError("no store was given: give one or more that `classlens measure` wrote")
    if isinstance(stores, Mapping):
        opened = [MeasuredStore(store) for store in stores.values()]
        for store, name in zip(opened, stores, strict=True):
            store.model = name
        return opened
    opened = [MeasuredStore(store) for store in stores]
    models = [store.model for store in opened]
    for store, model in zip(opened, models, strict=True):
        if models.count(model) > 1:
            store.model = f"{model} ({store.stem})"
    if len({store.model for store in opened}) < len(opened):
        raise ClasslensError("two stores have the same model and the same name: give each store once, or rename one")
    return opened
