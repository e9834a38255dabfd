"""Ranks of a store as importance: the rank of the class at every token, by any decoder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from numpy import ndarray

from classlens.data.dataset import Dataset
from classlens.errors import ClasslensError, suggestion
from classlens.lens.coords import image_names
from classlens.lens.lens import Lens
from classlens.models.digest import weights_digest
from classlens.store.open_store import group_names, open_group
from classlens.store.schema import MEASURED
from classlens.tasks.tokens.conditions.registry import decoder_conditions
from classlens.tasks.tokens.schema import check_values, require_condition

STORED_RANK = "stored_rank"
"""Name of the method on the command line; its options are ``condition`` and ``site``."""
_OPTIONS = ("condition", "site")


def stored_methods(store: str | os.PathLike[str]) -> list[str]:
    """A method for every condition of a store with another decoder than the class embedding."""
    groups = group_names(store)
    return [f"{STORED_RANK}:condition={name}" for name in decoder_conditions() if name in groups]


def check_stored_options(text: str, options: Mapping[str, int | float | str]) -> Mapping[str, int | float | str]:
    """The options of the method ``stored_rank``; raises ClasslensError for other options or a missing condition."""
    if "condition" not in options or any(option not in _OPTIONS for option in options):
        raise ClasslensError(
            f"method {text!r} does not name stored ranks: write it as {STORED_RANK}:condition=probe, with "
            ":site=attn_out for another site than resid_post"
        )
    return options


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

    Raises ClasslensError for a store of another model, and for one that lacks the condition, the site, or an image with
    its class. An image without a label has its predicted class there as well.
    Source: Vilas et al., NeurIPS 2023, section 4.2 (importance by linear probes).
    """
    groups = group_names(store)
    if condition not in groups:
        raise ClasslensError(
            f"store {os.fspath(store)!r} has no condition {condition!r}{suggestion(condition, groups)}: it holds "
            f"{', '.join(sorted(groups))}"
        )
    data = open_group(store, condition)
    if data.attrs.get("weights") != weights_digest(lens.view):
        raise ClasslensError(
            f"store {os.fspath(store)!r} is of model {data.attrs.get('model')!r} with other weights than those of "
            f"{lens.view.name!r}: give ranks of this model"
        )
    require_condition(os.fspath(store), data)
    sites = [str(name) for name in data["site"].values] if "site" in data else []
    if site not in sites:
        raise ClasslensError(
            f"store {os.fspath(store)!r} has no site {site!r}: it holds {', '.join(sites) or 'embed'}; measure it, or "
            f"give {STORED_RANK}:condition={condition}:site={sites[0] if sites else 'resid_post'}"
        )
    rows = _rows(store, data, dataset, [str(name) for name in image_names(dataset.names)], labels)
    image = np.flatnonzero(data["token_kind"].values.astype(object) == "image")
    stored = data["rank"].isel(site=sites.index(site)).values
    check_values(os.fspath(store), "rank", stored, data.attrs["num_classes"])
    ranks = stored[rows][:, :, image]
    if (ranks < 0).any():
        raise ClasslensError(
            f"condition {condition!r} of store {os.fspath(store)!r} has no ranks of some image tokens: train probes "
            "of all tokens"
        )
    return np.asarray(-ranks.sum(axis=1), dtype=np.float32)


def _rows(
    store: str | os.PathLike[str],
    data: xr.Dataset,
    dataset: Dataset,
    names: Sequence[str],
    labels: Int[ndarray, " image"],
) -> Int[ndarray, " image"]:
    """Row of each image in the store."""
    measured = data["measured"].values == MEASURED
    row_of = {str(name): row for row, name in enumerate(data["image"].values) if measured[row]}
    missing = [name for name in names if name not in row_of]
    if missing:
        raise ClasslensError(
            f"store {os.fspath(store)!r} lacks {len(missing)} of the images, such as {missing[0]!r}: measure ranks of "
            "the same images"
        )
    rows = np.array([row_of[name] for name in names], dtype=np.int64)
    other = data["content"].values[rows] != dataset.content(range(len(names)))
    if other.any():
        raise ClasslensError(
            f"image {names[int(np.flatnonzero(other)[0])]!r} has changed since the ranks in store "
            f"{os.fspath(store)!r} were measured: measure them again"
        )
    # Without a label, the class of interest is the predicted one in both.
    stored = np.where(labels < 0, data["label"].values[rows], data["target"].values[rows])
    differs = stored != labels
    if differs.any():
        first = int(np.flatnonzero(differs)[0])
        raise ClasslensError(
            f"image {names[first]!r} has another class in store {os.fspath(store)!r}: measure ranks of the same images"
        )
    return rows
