"""What a store holds of each condition: names, dims, types and fill values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from classlens.forward.agreement import BY, SUBLAYERS

Array = np.ndarray[Any, np.dtype[Any]]

# Sites that have the axis `site`; the embedding has one block where these have all.
SITES = ("attn_out", "resid_mid", "mlp_out", "resid_post")
FACTS = ("rank", "logit", "top1")

MEASURED, SKIPPED = 1, 2
"""Values of the variable ``measured``; 0 for an image that is yet to be measured."""


@dataclass(frozen=True)
class Variable:
    """One array of a condition's group. ``fill`` stands for what is not there: removed tokens, no mask, no label."""

    dims: tuple[str, ...]
    dtype: np.dtype[Any]
    fill: float
    note: str


@dataclass(frozen=True, eq=False)
class Layout:
    """The arrays of a group of a store, and the sizes of their dims."""

    sizes: Mapping[str, int]
    variables: Mapping[str, Variable]
    whole: frozenset[str]
    """Dims that are read at once; of others a chunk holds one place, so that one site and block is read cheaply."""

    def shape(self, dims: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(self.sizes[dim] for dim in dims)

    def inner(self, dims: tuple[str, ...], images: int) -> tuple[int, ...]:
        """The chunk that is read at once, of so many images."""
        return tuple(images if dim == "image" else self.sizes[dim] if dim in self.whole else 1 for dim in dims)

    def blank(self, images: int) -> dict[str, Array]:
        """Arrays for some images in which nothing is there yet."""
        return {
            name: np.full((images, *self.shape(variable.dims[1:])), variable.fill, dtype=variable.dtype)
            for name, variable in self.variables.items()
        }


@dataclass(frozen=True)
class Axes:
    """The sizes of everything that is measured."""

    images: int
    tokens: int
    blocks: int
    classes: int
    sites: tuple[str, ...]
    """Some of ``SITES``, in that order."""
    embed: bool
    memories: bool

    @property
    def class_dtype(self) -> np.dtype[Any]:
        """Of ranks and class indices: int16 up to 32,767 classes, then int32."""
        return np.dtype("int16" if self.classes < 2**15 else "int32")

    @property
    def sizes(self) -> dict[str, int]:
        return {
            "image": self.images,
            "site": len(self.sites),
            "block": self.blocks,
            "token": self.tokens,
            "by": len(BY),
            "sublayer": len(SUBLAYERS),
        }

    @property
    def layout(self) -> Layout:
        return Layout(self.sizes, variables(self), frozenset(["token"]))


def variables(axes: Axes) -> dict[str, Variable]:
    """Everything that a condition's group holds by image, in the order in which it is written."""
    index, flag = axes.class_dtype, np.dtype("int8")
    kinds: Mapping[str, tuple[np.dtype[Any], float, str]] = {
        "rank": (index, -1, "classes with a strictly larger logit than the target; 0 is best"),
        "logit": (np.dtype("float32"), np.nan, "logit of the target"),
        "top1": (index, -1, "class with the largest logit"),
    }
    found = {}
    if axes.sites:
        for name in FACTS:
            found[name] = Variable(("image", "site", "block", "token"), *kinds[name])
    if axes.embed:
        for name in FACTS:
            found[f"embed_{name}"] = Variable(("image", "token"), *kinds[name])
    if axes.memories:
        agreement = "1 where the token's strongest memories agree with the class, by each of the definitions"
        found["key_value_agreement"] = Variable(("image", "by", "sublayer", "block", "token"), flag, -1, agreement)
        match = "1 where the sublayer's top-1 class is that of one of the token's strongest memories"
        found["memory_match"] = Variable(("image", "sublayer", "block", "token"), flag, -1, match)
    return found | {
        "prediction": Variable(("image",), index, -1, "class with the model's largest logit"),
        "label": Variable(("image",), index, -1, "class of the data set; -1 where the image has none"),
        "target": Variable(
            ("image",), index, -1, "class of interest: the label, else what the unedited model predicts"
        ),
        "correct": Variable(("image",), flag, -1, "1 where the prediction is the label; -1 without a label"),
        "kept": Variable(("image", "token"), flag, -1, "1 for tokens that took part in the pass, 0 for removed ones"),
        "class_token": Variable(("image", "token"), flag, -1, "1 where the mask shows the image's class; -1 without"),
    }
