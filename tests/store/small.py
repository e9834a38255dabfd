"""A small schema with known contents."""

from __future__ import annotations

import numpy as np

from classlens.core.arrays import Array
from classlens.store.schema import Schema, Variable

IMAGES, SITES, BLOCKS, TOKENS = 130, ("attn_out", "resid_post"), 3, 5


def schema(images: int = IMAGES) -> Schema:
    return Schema(
        sizes={"image": images, "site": len(SITES), "block": BLOCKS, "token": TOKENS},
        variables={
            "rank": Variable(("image", "site", "block", "token"), np.dtype("int16"), -1, "rank of the target"),
            "logit": Variable(("image", "token"), np.dtype("float32"), np.nan, "logit of the target"),
        },
        chunked=frozenset(["token"]),
        coords={
            "image": ("image", np.array([f"{number}.png" for number in range(images)], dtype=object)),
            "site": ("site", np.array(SITES, dtype=object)),
            "block": ("block", np.arange(BLOCKS)),
            "token": ("token", np.arange(TOKENS)),
            "token_kind": ("token", np.array(["cls", *["image"] * 4], dtype=object)),
        },
        attrs={"note": "for tests"},
    )


def values(images: int = IMAGES, seed: int = 0) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    return {
        "rank": random.integers(0, 9, (images, len(SITES), BLOCKS, TOKENS)).astype(np.int16),
        "logit": random.standard_normal((images, TOKENS)).astype(np.float32),
    }


def part(arrays: dict[str, Array], images: slice) -> dict[str, Array]:
    return {name: array[images] for name, array in arrays.items()}
