"""Groups of a store that hold contributions, and what heads and units read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from classlens.core.arrays import Array
from classlens.core.top_tokens import TOP
from classlens.lens.coords import image_names
from classlens.lens.directions import Directions
from classlens.models.view import ModelView
from classlens.store.schema import Coords, Schema, Variable

ATTRIBUTION, UNITS = "attribution", "units"
"""Groups with values for each image."""
HEAD_TOKENS, UNIT_TOKENS, HEAD_MAPS = "head_tokens", "unit_tokens", "head_maps"
"""Groups of the whole data set, or of the parameters."""
OF = ("label", "prediction", "mean")
"""Logits that are attributed: of the image's label, of the predicted class, and the mean over all classes."""
UNIT_OF = OF[:2]
SIDES = ("left", "top", "right", "bottom")

_FLOAT = np.dtype("float32")


@dataclass(frozen=True)
class AttributionAxes:
    """Sizes of contributions.

    Args:
        images, blocks, heads: sizes; ``heads`` is the largest number of a block.
        units: hidden units of an MLP, the largest number of a block.
        listed: units of an image whose contributions are stored; 0 for no group of units.
        directions: digest of the directions that take the place of units; empty for units.
    """

    images: int
    blocks: int
    heads: int
    units: int
    listed: int = 0
    directions: str = ""

    @classmethod
    def of(cls, view: ModelView, images: int, listed: int, directions: Directions | None = None) -> AttributionAxes:
        """The sizes of a model; directions are those of one block."""
        heads, blocks = max(block.heads for block in view.blocks), len(view.blocks)
        if directions is not None:
            features = len(directions.directions)
            return cls(images, blocks, heads, features, min(listed, features), directions.digest)
        units = max(block.mlp.weight.shape[1] for block in view.blocks)
        return cls(images, blocks, heads, units, min(listed, sum(block.mlp.weight.shape[1] for block in view.blocks)))

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups with values for each image."""
        return (ATTRIBUTION, UNITS) if self.listed else (ATTRIBUTION,)

    def rows(self, group: str) -> int:
        """Heads or units of all blocks, whose strongest tokens a group of images adds to."""
        return self.blocks * (self.heads if group == ATTRIBUTION else self.units)

    def schema(self, group: str, names: Sequence[str]) -> Schema:
        """The schema of a group with values for each image; ``names`` are those of the images."""
        coords: dict[str, tuple[str, Array]] = {"image": ("image", image_names(names))}
        if group == UNITS:
            sizes = {"image": self.images, "unit_of": len(UNIT_OF), "rank": self.listed}
            coords |= {"unit_of": ("unit_of", _texts(UNIT_OF)), "rank": ("rank", np.arange(self.listed))}
            note = "directions" if self.directions else "hidden units"
            attrs = {
                "units_per_block": self.units,
                "directions": self.directions,
                "note": f"{note} that add most to a logit, above the mean class",
            }
            return Schema(sizes, UNIT_VARIABLES, frozenset(["unit_of", "rank"]), coords, attrs)
        sizes = {"image": self.images, "of": len(OF), "block": self.blocks, "head": self.heads, "side": len(SIDES)}
        coords |= {
            "of": ("of", _texts(OF)),
            "side": ("side", _texts(SIDES)),
            "block": ("block", np.arange(self.blocks)),
            "head": ("head", np.arange(self.heads)),
        }
        attrs = {"note": "exact contributions to logits, and attention of each head"}
        return Schema(sizes, VARIABLES, frozenset(["of", "block", "head", "side"]), coords, attrs)

    def coords(self, **more: int) -> Coords:
        """Numbers of blocks, of the strongest tokens, and of other dims by their size."""
        sizes = {"block": self.blocks, "top": TOP, **more}
        return {name: (name, np.arange(size)) for name, size in sizes.items()}


def _texts(values: tuple[str, ...]) -> Array:
    return np.array(values, dtype=object)


_HEADS = ("image", "of", "block", "head")
VARIABLES: Mapping[str, Variable] = {
    "embed_contribution": Variable(_HEADS[:2], _FLOAT, np.nan, "contribution of the embeddings to the logit"),
    "head_contribution": Variable(_HEADS, _FLOAT, np.nan, "contribution of a head to the logit"),
    "mlp_contribution": Variable(_HEADS[:3], _FLOAT, np.nan, "contribution of an MLP to the logit"),
    "bias_contribution": Variable(_HEADS[:2], _FLOAT, np.nan, "contribution of all biases to the logit"),
    "attributed_logit": Variable(_HEADS[:2], _FLOAT, np.nan, "the logit, which is the sum of all contributions"),
    "attention_distance": Variable(
        ("image", "block", "head"),
        _FLOAT,
        np.nan,
        "distance between image tokens, weighted by attention, mean over queries, in token widths",
    ),
    "attention_entropy": Variable(
        ("image", "block", "head"), _FLOAT, np.nan, "entropy of the attention of a token, mean over queries, in nats"
    ),
    "frame": Variable(("image", "side"), _FLOAT, np.nan, "borders of the model's input in pixels of the upright photo"),
}
UNIT_VARIABLES: Mapping[str, Variable] = {
    "top_unit": Variable(
        ("image", "unit_of", "rank"), np.dtype("int32"), -1, "unit, as block × units_per_block + unit of the block"
    ),
    "top_unit_contribution": Variable(
        ("image", "unit_of", "rank"), _FLOAT, np.nan, "contribution of the unit to the logit minus the mean logit"
    ),
}
