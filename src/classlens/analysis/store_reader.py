"""A store opened for analysis: what it lacks, and its images part by part."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from classlens.errors import ClasslensError
from classlens.store.backend import as_url
from classlens.store.open_store import group_names, open_group
from classlens.store.schema import MEASURED
from classlens.store.store import SHARD

CLEAN = "clean"
Tokens = Literal["cls", "image", "all"]

# Numbers of one variable that are read at once.
_READ = 2**22


@dataclass(frozen=True)
class Need:
    """Something that an experiment reads. Where it is not there, the reason names the flag that measures it.

    ``optional``: the experiment goes on without, and says what is left out.
    """

    condition: str = CLEAN
    either: tuple[str, ...] = ()
    """Conditions of which one is enough."""
    sites: tuple[str, ...] = ()
    memories: bool = False
    masks: bool = False
    parameters: bool = False
    twin_parameters: bool = False
    cls: bool = False
    labels: bool = False
    optional: bool = False


class StoreReader:
    """One store of `classlens measure`, read a part at a time.

    Images that are not measured under ``clean`` (yet, or because they were skipped) are left out of everything.
    """

    def __init__(self, store: str | os.PathLike[str]) -> None:
        self.url = as_url(store)
        self._names = group_names(self.url)
        self._groups: dict[str, xr.Dataset] = {}
        clean = self.group(CLEAN)
        if clean is None and any("." in name for name in self._names):  # metric and method, of faithfulness
            raise ClasslensError(
                f"store {self.url!r} is one of `classlens evaluate`, whose tables stand in results beside it: "
                "give a store of `classlens measure`"
            )
        if clean is None:
            raise ClasslensError(
                f"store {self.url!r} has no condition 'clean', against which all others are set: measure it with "
                "--conditions clean"
            )
        self.attrs: dict[str, Any] = dict(clean.attrs)
        self.model = str(self.attrs["model"])
        self.num_classes = int(self.attrs["num_classes"])
        self.blocks = clean.sizes["block"]
        self.total = clean.sizes["image"]
        kinds = clean["token_kind"].values.astype(object)
        self._tokens = {
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
        """Images that are measured."""
        return len(self._measured)

    @property
    def stem(self) -> str:
        return PurePosixPath(self.url.rstrip("/")).stem

    def group(self, name: str) -> xr.Dataset | None:
        """A condition or ``parameters``; None where it was not measured."""
        if not self.has(name):
            return None
        if name not in self._groups:
            self._groups[name] = open_group(self.url, name)
        return self._groups[name]

    def has(self, condition: str) -> bool:
        return condition in self._names

    def tokens(self, which: Tokens) -> Int[ndarray, " tokens"]:
        """Places of ``[CLS]``, of the image tokens, or of all tokens."""
        return self._tokens[which]

    @property
    def token_groups(self) -> tuple[Tokens, ...]:
        """The groups that are always told apart; without ``cls`` where the model has none."""
        return ("cls", "image") if len(self._tokens["cls"]) else ("image",)

    @property
    def first_block(self) -> int:
        """The first block whose input is known: 0, or 1 where the embeddings were not measured."""
        return 0 if "embed" in self.attrs["sites"] else 1

    def class_names(self) -> list[str]:
        clean = self._groups[CLEAN]
        return [str(name) for name in clean["class_name"].values]

    def lacks(self, need: Need) -> str | None:
        """Why something cannot be analyzed, and the flag that measures it; None where it is all there."""
        group = self.group(need.condition)
        if group is None:
            return f"condition {need.condition} was not measured: add --conditions {need.condition}"
        if need.either and not any(self.has(name) for name in need.either):
            names = " nor ".join(need.either)
            return f"neither condition {names} was measured: add --conditions {','.join(need.either)}"
        sites = [site for site in need.sites if site not in self.attrs["sites"]]
        if sites == ["resid_mid"] and not self._can_have_mid():
            return "blocks with parallel branches have no resid_mid"
        if sites:
            return f"site {sites[0]} was not measured: measure anew with --sites that name it, or without --sites"
        if need.memories and not self.attrs["memories"]:
            return "memories were not measured: measure anew with --memories"
        parameters = self.group("parameters")
        if need.parameters and parameters is None:
            return "the parameters were not looked at: measure anew with --memories"
        if need.twin_parameters and (parameters is None or "random_init" not in parameters["weights"].values):
            return "the random twin's parameters were not looked at: measure a model by its name with --memories"
        if need.masks and not self._has_masks(group):
            return "the images have no masks: measure a data set that has them, such as --data imagenet-s:ROOT"
        if need.cls and not len(self._tokens["cls"]):
            return "the model has no [CLS] token"
        if need.labels and not bool((group["label"].values >= 0).any()):
            return "the images have no labels: measure a data set that has them"
        return None

    def _can_have_mid(self) -> bool:
        if "has_mid" in self.attrs:
            return bool(self.attrs["has_mid"])
        # All sites but this one: the model has it not. Fewer sites: nobody knows.
        return not {"attn_out", "mlp_out", "resid_post"} <= set(self.attrs["sites"])

    def _has_masks(self, group: xr.Dataset) -> bool:
        return any(
            bool((group["class_token"].isel(image=slice(start, start + SHARD)).values >= 0).any())
            for start in range(0, self.total, SHARD)
        )

    def parts(self) -> Iterator[Part]:
        """The measured images, in order, some whole shards at a time."""
        clean = self._groups[CLEAN]
        size = int(np.prod([clean.sizes.get(dim, 1) for dim in ("site", "block", "token")]))
        step = max(1, _READ // (size * SHARD)) * SHARD
        for start in range(0, self.total, step):
            chosen = self._measured[(self._measured >= start) & (self._measured < start + step)]
            if len(chosen):
                yield Part(self, start, min(step, self.total - start), chosen - start)


class Part:
    """Some images of a store; each variable is read once, when it is first asked for."""

    def __init__(self, store: StoreReader, start: int, count: int, chosen: Int[ndarray, " images"]) -> None:
        self.store = store
        self.images = len(chosen)
        self._slice, self._chosen = slice(start, start + count), chosen
        self._read: dict[tuple[str, str], ndarray[Any, Any]] = {}

    def of(self, name: str, condition: str = CLEAN, **where: str) -> ndarray[Any, Any]:
        """A variable of these images, such as ``of("rank", site="resid_post")``: image, then block, then token."""
        group = self.store.group(condition)
        if group is None:
            raise AssertionError(f"condition {condition} is not there: say so in the needs of the experiment")
        key = (condition, name)
        if key not in self._read:
            self._read[key] = np.asarray(group[name].isel(image=self._slice).values)[self._chosen]
        values, dims = self._read[key], list(group[name].dims)
        for dim, label in where.items():
            place = [str(one) for one in group[dim].values].index(label)
            values = values.take(place, axis=dims.index(dim))
            dims.remove(dim)
        return values

    def entering(self, name: str, condition: str = CLEAN) -> ndarray[Any, Any]:
        """A fact of the residual stream that each block takes in, from block ``store.first_block`` on."""
        before = self.of(name, condition, site="resid_post")[:, :-1]
        if self.store.first_block:
            return before
        return np.concatenate([self.of(f"embed_{name}", condition)[:, None], before], axis=1)

    def leaving(self, name: str, site: str, condition: str = CLEAN) -> ndarray[Any, Any]:
        """A fact of a site of the same blocks as ``entering``."""
        return self.of(name, condition, site=site)[:, self.store.first_block :]

    def there(self, condition: str) -> Bool[ndarray, " images"]:
        """Which of these images are measured under a condition too."""
        return np.asarray(self.of("measured", condition) == MEASURED)

    def mean(
        self,
        values: ndarray[Any, Any],
        tokens: Tokens | Int[ndarray, " tokens"] = "image",
        condition: str = CLEAN,
    ) -> Float[ndarray, "images blocks"]:
        """Of each image, the mean over some tokens; NaN where the condition was not measured."""
        where = self.store.tokens(tokens) if isinstance(tokens, str) else tokens
        found = values[..., where].mean(axis=-1, dtype=np.float64)
        found[~self.there(condition)] = np.nan
        return np.asarray(found)


def open_readers(stores: Sequence[str | os.PathLike[str]]) -> list[StoreReader]:
    """Stores under names that differ: the model's, and where two stores are of one model, the store's beside it."""
    if not stores:
        raise ClasslensError("no store was given: give one or more that `classlens measure` wrote")
    found = [StoreReader(store) for store in stores]
    names = [one.model for one in found]
    for one, name in zip(found, names, strict=True):
        if names.count(name) > 1:
            one.model = f"{name} ({one.stem})"
    if len({one.model for one in found}) < len(found):
        raise ClasslensError("two stores have the same model and the same name: give each store once, or rename one")
    return found
