"""Ranks of the class at every token that a store holds, as an explanation: those of probes, or of a tuned lens."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from numpy import ndarray

from classlens.data.dataset import Dataset
from classlens.errors import ClasslensError, suggestion
from classlens.lens.labels import image_names
from classlens.lens.lens import Lens
from classlens.models.digest import weights_digest
from classlens.store.schema import MEASURED
from classlens.store.store import groups_of, open_store
from classlens.tasks.tokens.conditions import READINGS

NAME = "stored_rank"
OPTIONS = ("condition", "site")


def conditions_of(store: str | os.PathLike[str]) -> tuple[str, ...]:
    """The conditions of a store that read tokens in another way than by the class embedding."""
    there = groups_of(store)
    return tuple(name for name in READINGS if name in there)


def stored_importance(
    store: str | os.PathLike[str],
    dataset: Dataset,
    lens: Lens,
    labels: Int[ndarray, " image"],
    *,
    condition: str,
    site: str = "resid_post",
) -> Float[ndarray, "image token"]:
    """Minus the rank of the class at each image token, summed over blocks: the lowest rank is the most important.

        stored_importance("probes/probes.zarr", dataset, lens, labels, condition="probe")

    Source: the paper, section 4.2 (importance by linear probes). Raises ClasslensError for a store of another model, or
    one that lacks the condition, the site, an image, or its class.
    """
    there = groups_of(store)
    if condition not in there:
        raise ClasslensError(
            f"store {os.fspath(store)!r} has no condition {condition!r}{suggestion(condition, there)}: it holds "
            f"{', '.join(sorted(there))}"
        )
    data = open_store(store, condition)
    if data.attrs.get("weights") != weights_digest(lens.view):
        raise ClasslensError(
            f"store {os.fspath(store)!r} is of model {data.attrs.get('model')!r} with other weights than those of "
            f"{lens.view.name!r}: give ranks of this model"
        )
    sites = [str(one) for one in data["site"].values] if "site" in data else []
    if site not in sites:
        raise ClasslensError(
            f"store {os.fspath(store)!r} has no site {site!r}: it holds {', '.join(sites) or 'embed'}; measure it, or "
            f"give {NAME}:condition={condition}:site={sites[0] if sites else 'resid_post'}"
        )
    rows = _rows(store, data, [str(name) for name in image_names(dataset.names)], labels)
    image = np.flatnonzero(data["token_kind"].values.astype(object) == "image")
    rank = data["rank"].isel(site=sites.index(site)).values[rows][:, :, image]
    if (rank[labels >= 0] < 0).any():
        raise ClasslensError(
            f"condition {condition!r} of store {os.fspath(store)!r} does not read all image tokens: train probes of all"
        )
    return np.asarray(-rank.sum(axis=1), dtype=np.float32)


def _rows(
    store: str | os.PathLike[str], data: xr.Dataset, names: Sequence[str], labels: Int[ndarray, " image"]
) -> Int[ndarray, " image"]:
    """Where each image stands in the store; an image without a label is not looked up."""
    measured = data["measured"].values == MEASURED
    place = {str(name): row for row, name in enumerate(data["image"].values) if measured[row]}
    wanted = [name for name, label in zip(names, labels, strict=True) if label >= 0]
    lacking = [name for name in wanted if name not in place]
    if lacking:
        raise ClasslensError(
            f"store {os.fspath(store)!r} lacks {len(lacking)} of the images, such as {lacking[0]!r}: measure ranks of "
            "the same images"
        )
    rows = np.array([place.get(name, 0) for name in names], dtype=np.int64)
    other = (data["target"].values[rows] != labels) & (labels >= 0)
    if other.any():
        first = int(np.flatnonzero(other)[0])
        raise ClasslensError(
            f"image {names[first]!r} has another class in store {os.fspath(store)!r}: measure ranks of the same images"
        )
    return rows
