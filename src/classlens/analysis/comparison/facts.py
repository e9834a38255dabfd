"""The facts of every image of a store that a comparison needs, read once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from numpy import ndarray

from classlens.analysis.image_table import CONTENT
from classlens.analysis.measured_store import MeasuredStore
from classlens.core.arrays import Array
from classlens.core.stats import ratio
from classlens.core.trajectories import commitment
from classlens.store.metadata import SHARD
from classlens.store.schema import MEASURED
from classlens.tasks.tokens.conditions.registry import CLEAN
from classlens.tasks.tokens.schema import TRAJECTORY, check_values

_MAX_VALUES = 2**20
"""Values of one variable that are read at once."""


@dataclass(frozen=True, eq=False)
class Facts:
    """The measured images of a store; classes are its own indices, -1 for none.

    Measures that the store lacks are NaN, and ``top`` has no depth then.
    """

    index: Int[ndarray, " image"]
    """Index of each image in the store."""
    name: Array
    content: Int[ndarray, " image"] | None
    """None where the store has it not for every image."""
    label: Int[ndarray, " image"]
    prediction: Int[ndarray, " image"]
    target: Int[ndarray, " image"]
    top: Int[ndarray, "image depth"]
    """Top class after the embeddings and after every block."""
    confidence: Float[ndarray, " image"]
    entropy: Float[ndarray, " image"]
    margin: Float[ndarray, " image"]
    commitment: Float[ndarray, " image"]
    """Depth from which on the top class stays, as a share of all blocks."""
    tokens_on_top: Float[ndarray, " image"]
    """Share of the image tokens with the class of interest on top after the last block."""

    def part(self, chosen: Int[ndarray, " chosen"]) -> Facts:
        """The same of some images."""
        parts: dict[str, Any] = {key: None if value is None else value[chosen] for key, value in vars(self).items()}
        return Facts(**parts)


def read_facts(store: MeasuredStore) -> Facts:
    """The facts of a store; raises ClasslensError for one with values that it cannot have."""
    clean = store.group(CLEAN)
    assert clean is not None, "every store has the condition clean"
    index = np.flatnonzero(clean["measured"].values == MEASURED)
    classes = {name: _whole(store, clean, name)[index] for name in ("label", "prediction", "target")}
    content = np.asarray(clean[CONTENT].values)[index] if CONTENT in clean else None
    measures = _trajectory(store, clean, index)
    return Facts(
        index=index,
        name=np.asarray(clean["image"].values, dtype=object)[index],
        content=content if content is not None and bool(content.all()) else None,
        confidence=np.asarray(clean["confidence"].values, dtype=np.float64)[index],
        tokens_on_top=_tokens_on_top(store, clean)[index],
        **classes,
        **measures,
    )


def _whole(store: MeasuredStore, clean: xr.Dataset, name: str) -> Array:
    values = np.asarray(clean[name].values)
    check_values(store.url, name, values, store.num_classes)
    return values.astype(np.int64)


def _trajectory(store: MeasuredStore, clean: xr.Dataset, index: Array) -> dict[str, Array]:
    if f"{TRAJECTORY}_top" not in clean:  # a store of an earlier version
        nothing = np.full(len(index), np.nan)
        return {
            "top": np.zeros((len(index), 0), dtype=np.int64),
            **dict.fromkeys(("entropy", "margin", "commitment"), nothing),
        }
    top = _whole(store, clean, f"{TRAJECTORY}_top")[index]
    logit = np.asarray(clean[f"{TRAJECTORY}_top_logit"].values[:, -1], dtype=np.float64)[index]
    entropy = np.asarray(clean[f"{TRAJECTORY}_entropy"].values[:, -1], dtype=np.float64)[index]
    return {
        "top": top[..., 0],
        "entropy": entropy,
        "margin": logit[:, 0] - logit[:, 1] if logit.shape[1] > 1 else np.full(len(index), np.nan),
        "commitment": commitment(top[..., 0]) / store.blocks,
    }


def _tokens_on_top(store: MeasuredStore, clean: xr.Dataset) -> Array:
    if "rank" not in clean or "resid_post" not in store.attrs["sites"]:
        return np.full(store.total_images, np.nan)
    site = [str(name) for name in clean["site"].values].index("resid_post")
    ranks = clean["rank"].isel(site=site, block=store.blocks - 1)
    step = max(1, _MAX_VALUES // (ranks.sizes["token"] * SHARD)) * SHARD
    shares = []
    for start in range(0, store.total_images, step):
        part = np.asarray(ranks.isel(image=slice(start, start + step)).values)[:, store.positions("image")]
        shares.append(ratio((part == 0).sum(axis=1), (part >= 0).sum(axis=1)))
    return np.concatenate(shares)
