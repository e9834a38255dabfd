"""Schema of a condition: facts of every token at every site and block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from classlens.core.arrays import Array
from classlens.errors import ClasslensError
from classlens.forward.agreement import BY, SUBLAYERS
from classlens.store.schema import Coords, Schema, Variable

STORED_SITES = ("attn_out", "resid_mid", "mlp_out", "resid_post")
"""Sites along the dim ``site``; ``embed`` has one block where these have all."""
FACTS = ("rank", "logit", "top1")
_PLACES = 5
"""Top classes that a trajectory keeps at each depth."""
NORM = "norm"
"""The variable of token norms."""
TRAJECTORY = "trajectory"
"""The variables of a trajectory are named by this and a field of ``DepthFacts``, such as ``trajectory_entropy``."""
GROUP_TRAJECTORY = f"group_{TRAJECTORY}"
"""Those of groups of classes, such as ``group_trajectory_entropy``."""


@dataclass(frozen=True)
class Axes:
    """Sizes of everything that is measured, and which sites are.

    Args:
        images, tokens, blocks, classes: sizes.
        sites: some of ``STORED_SITES``, in that order.
        embed: whether ``embed`` is measured.
        memories: whether key/value memories are.
        trajectory, norms: whether decision trajectories and norms are, which stores of earlier versions lack.
        label_groups: number of groups of classes whose trajectories are measured as well, if any.
    """

    images: int
    tokens: int
    blocks: int
    classes: int
    sites: tuple[str, ...]
    embed: bool
    memories: bool
    trajectory: bool = True
    label_groups: int = 0
    norms: bool = True

    @property
    def places(self) -> int:
        """Top classes that a trajectory keeps at each depth."""
        return min(_PLACES, self.classes)

    @property
    def group_places(self) -> int:
        """Top groups that a trajectory of groups keeps at each depth."""
        return min(_PLACES, self.label_groups)

    @property
    def all_sites(self) -> tuple[str, ...]:
        """The measured sites, ``embed`` last."""
        return (*self.sites, *(["embed"] if self.embed else []))

    def schema(self, coords: Coords | None = None, attrs: Mapping[str, Any] | None = None) -> Schema:
        """The schema of a condition."""
        sizes = {
            "image": self.images,
            "site": len(self.sites),
            "block": self.blocks,
            "token": self.tokens,
            "by": len(BY),
            "sublayer": len(SUBLAYERS),
            "depth": self.blocks + 1,
            "place": self.places,
            "group_place": self.group_places,
        }
        whole = frozenset(["token", "depth", "place", "group_place"])
        return Schema(sizes, _variables(self), whole, coords or {}, attrs or {})


_COORDS = {"image": "image", "block": "block", "token_kind": "token", "category": "category", "class_name": "category"}
"""Coordinates of every condition and their dims."""


def require_condition(store: str, data: xr.Dataset) -> Axes:
    """The axes of a condition in a store; raises ClasslensError where it has other arrays than `measure` writes.

    ``data`` has the attributes of the store.
    """
    attrs, sizes = data.attrs, data.sizes
    try:
        sites = tuple(site for site in attrs["sites"] if site in STORED_SITES)
        axes = Axes(
            images=sizes["image"],
            tokens=sizes["token"],
            blocks=sizes["block"],
            classes=attrs["num_classes"],
            sites=sites,
            embed="embed" in attrs["sites"],
            memories=attrs["memories"],
            trajectory=any(str(name).startswith(f"{TRAJECTORY}_") for name in data.data_vars),
            label_groups=sizes.get("group", 0),
            norms=NORM in data,
        )
    except KeyError as error:
        raise _other_form(store, f"it lacks {error.args[0]!r}") from None
    arrays = {name: (array.dims, array.shape, array.dtype) for name, array in data.variables.items()}
    schema = axes.schema()
    for name, variable in schema.variables.items():
        if arrays.get(name) != (variable.dims, schema.shape(variable.dims), variable.dtype):
            raise _other_form(store, f"{name!r} is missing or of another form")
    coordinates = {**_COORDS, "measured": "image", **({"site": "site"} if sites else {})}
    if axes.label_groups:
        coordinates |= {"group_name": "group", "class_group": "category"}
    for name, dim in coordinates.items():
        if name not in arrays or arrays[name][0] != (dim,):
            raise _other_form(store, f"{name!r} is missing or of another form")
    if sizes["category"] != axes.classes or (sites and tuple(map(str, data["site"].values)) != sites):
        raise _other_form(store, "its classes or sites are not those of its attributes")
    if axes.label_groups:
        of_class = data["class_group"].values
        if of_class.dtype.kind != "i" or not -1 <= of_class.min() <= of_class.max() < axes.label_groups:
            raise _other_form(store, "its classes are of groups that it does not have")
    return axes


def require_parameters(store: str, data: xr.Dataset, axes: Axes) -> None:
    """Raises ClasslensError where the agreement in the group ``parameters`` is not as `measure` writes it."""
    name = "class_value_agreement"
    if name not in data or data[name].dims != ("weights", "sublayer", "block", "category"):
        raise _other_form(store, f"{name!r} is missing or of another form")
    if (data.sizes["block"], data.sizes["category"]) != (axes.blocks, axes.classes):
        raise _other_form(store, "its parameters are of another model")
    labels = [[str(text) for text in data[dim].values] if dim in data.coords else [] for dim in ("weights", "sublayer")]
    if labels[0] not in (["model"], ["model", "random_init"]) or labels[1] != list(SUBLAYERS):
        raise _other_form(store, "its parameters have other weights or sublayers")


def check_values(store: str, name: str, values: Array, classes: int) -> None:
    """Raises ClasslensError for ranks and classes that the model does not have, and for flags other than -1, 0 or 1."""
    if values.dtype.kind != "i" or not values.size or name == "content":  # a hash
        return
    high = 1 if values.dtype == np.int8 else classes - 1
    if not -1 <= values.min() <= values.max() <= high:
        raise _other_form(store, f"{name!r} has values beyond {high}")


def _other_form(store: str, reason: str) -> ClasslensError:
    return ClasslensError(
        f"store {store!r} is not used, since {reason}: expected what `classlens measure` writes; measure it anew"
    )


def class_dtype(classes: int) -> np.dtype[Any]:
    """Type of ranks and class indices: int16 up to 32,767 classes, then int32."""
    return np.dtype("int16" if classes < 2**15 else "int32")


def _variables(axes: Axes) -> dict[str, Variable]:
    """The arrays of a condition, in the order in which they are written."""
    index, flag = class_dtype(axes.classes), np.dtype("int8")
    facts: Mapping[str, tuple[np.dtype[Any], float, str]] = {
        "rank": (index, -1, "classes with a strictly larger logit than the target; 0 is best"),
        "logit": (np.dtype("float32"), np.nan, "logit of the target"),
        "top1": (index, -1, "class with the largest logit"),
    }
    variables = {}
    if axes.sites:
        for name in FACTS:
            variables[name] = Variable(("image", "site", "block", "token"), *facts[name])
    if axes.embed:
        for name in FACTS:
            variables[f"embed_{name}"] = Variable(("image", "token"), *facts[name])
    if axes.memories:
        agreement = "1 where the token's strongest memories agree with the class, by each of the definitions"
        variables["key_value_agreement"] = Variable(("image", "by", "sublayer", "block", "token"), flag, -1, agreement)
        match = "1 where the sublayer's top-1 class is the top-1 class of one of the token's strongest memories"
        variables["memory_match"] = Variable(("image", "sublayer", "block", "token"), flag, -1, match)
    if axes.norms:
        norm = "L2 norm of the token after a block"
        variables[NORM] = Variable(("image", "block", "token"), np.dtype("float32"), np.nan, norm)
    if axes.trajectory:
        variables |= _trajectory(TRAJECTORY, "place", index, "classes", "the target")
    if axes.label_groups:
        variables |= _trajectory(GROUP_TRAJECTORY, "group_place", index, "groups", "the target's group")
    return variables | {
        "prediction": Variable(("image",), index, -1, "class with the model's largest logit"),
        "confidence": Variable(("image",), np.dtype("float32"), np.nan, "probability of the prediction (softmax)"),
        "label": Variable(("image",), index, -1, "class of the data set; -1 for an image without a label"),
        "target": Variable(
            ("image",), index, -1, "class of interest: the label, else the prediction of the unedited model"
        ),
        "correct": Variable(("image",), flag, -1, "1 where the prediction is the label; -1 without a label"),
        "kept": Variable(("image", "token"), flag, -1, "1 for tokens of the pass, 0 for removed ones"),
        "class_token": Variable(
            ("image", "token"), flag, -1, "1 where the mask shows the image's class; -1 without a mask"
        ),
    }


def _trajectory(prefix: str, place: str, index: np.dtype[Any], what: str, target: str) -> dict[str, Variable]:
    """The arrays of a trajectory of classes or groups."""
    logit, depths, places = np.dtype("float32"), ("image", "depth"), ("image", "depth", place)
    variables = {
        "top": Variable(places, index, -1, f"{what} with the largest logits of the pooled tokens at a depth"),
        "top_logit": Variable(places, logit, np.nan, f"logits of the {what} on top at a depth"),
        "final_logit": Variable(places, logit, np.nan, f"logits of the {what} on top at the last depth"),
        "rank": Variable(depths, index, -1, f"{what} with a strictly larger logit than {target}; 0 is best"),
        "logit": Variable(depths, logit, np.nan, f"logit of {target}"),
        "logsumexp": Variable(depths, logit, np.nan, "logarithm of the sum of the exponentials of all logits"),
        "entropy": Variable(depths, logit, np.nan, "entropy of the softmax of all logits, in nats"),
    }
    return {f"{prefix}_{name}": variable for name, variable in variables.items()}
