"""The tables of an atlas: their names and columns, with the meaning of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from classlens.core.arrays import Array

ATTN, MLP = "attn", "mlp"
GROUPS = ALL, RIGHT, WRONG = "all", "right", "wrong"
"""Images of a class: all of them, those with a right prediction, and those with a wrong one."""
TOP_UNITS = 30
"""Units of a class in the table ``unit_writers``."""
TOP_TOKENS = 9
"""Tokens of a class in the table ``class_tokens``."""


class Column(NamedTuple):
    """A column: its type and its meaning."""

    dtype: str
    about: str


@dataclass(frozen=True)
class Table:
    """A table: what it holds, and its columns."""

    about: str
    columns: Mapping[str, Column]

    def frame(self, values: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """A data frame of values by column; without values, all columns and no row."""
        values = values or {}
        assert not values or set(values) == set(self.columns), set(values) ^ set(self.columns)
        series = {name: pd.Series(values.get(name, []), dtype=column.dtype) for name, column in self.columns.items()}
        return pd.DataFrame(series)


def _number(about: str) -> Column:
    return Column("float64", about)


def _count(about: str) -> Column:
    return Column("int64", about)


def _text(about: str) -> Column:
    return Column("str", about)


def _interval(prefix: str = "") -> dict[str, Column]:
    return {
        f"{prefix}low": _number("lower end of its interval"),
        f"{prefix}high": _number("upper end of its interval"),
    }


_BLOCK = {"block": _count("block, from 0")}
_HEAD = {**_BLOCK, "head": _count("head of the block, from 0")}
_UNIT = {**_BLOCK, "unit": _count("hidden unit of the block's MLP, from 0")}
_CATEGORY = {"category": _count("class, by its index")}
_CLASS = {**_CATEGORY, "class_name": _text("its name")}
_GROUP = {"group": _text("`all` images of the class, those predicted `right`, or those predicted `wrong`")}
_PART = {
    "sublayer": _text("`attn` or `mlp`"),
    **_BLOCK,
    "head": _count("head of the block, from 0; -1 for an MLP, which counts as a whole"),
}
_PAIR = {"label": _count("class of the label"), "prediction": _count("class that is predicted in its place")}
_TOKEN = {
    "image": _text("name of the image"),
    "image_index": _count("its index in the store"),
    "token": _count("position of the token in the sequence, prefix tokens first"),
    "row": _count("row of the token in the grid, from 0"),
    "column": _count("column of the token in the grid, from 0"),
}
_IMAGE_CLASSES = {
    "label": _count("label of the image; -1 without one"),
    "prediction": _count("predicted class of the image"),
}
_TOP = {"top": _count("rank, from 0, the strongest first")}

CLASSES = Table(
    "every class of the model: how often it is the label, and how often it is predicted",
    {
        **_CLASS,
        "images": _count("images with this label"),
        "correct": _count("of these, images that the model predicts right"),
        "accuracy": _number("`correct / images`"),
        **_interval("accuracy_"),
        "predicted": _count("images, of any label or none, for which the model predicts this class"),
    },
)
CONFUSIONS = Table(
    "every pair of a label and another class that is predicted for at least one image, the most frequent first",
    {
        "label": _PAIR["label"],
        "label_name": _text("its name"),
        "prediction": _PAIR["prediction"],
        "prediction_name": _text("its name"),
        "images": _count("images of the label for which this class is predicted"),
        "share": _number("their share of all images of the label"),
        **_interval("share_"),
    },
)
TRAJECTORY = Table(
    "the decision for each class after each block, from the pooled tokens",
    {
        **_CATEGORY,
        "depth": _count("blocks passed: 0 are the embeddings, and the last depth is the output"),
        **_GROUP,
        "images": _count("number of images"),
        "on_top": _number("share of images for which no class has a larger logit at this depth"),
        **_interval("on_top_"),
        "log_probability": _number("mean logarithm of the probability (softmax) of the class at this depth"),
        **_interval("log_probability_"),
    },
)
WRITERS = Table(
    "the mean contribution of each head and MLP to each class",
    {
        **_CATEGORY,
        **_PART,
        **_GROUP,
        "images": _count("number of images"),
        "contribution": _number(
            "mean over images of the contribution to the logit of the class minus that to the mean of all logits"
        ),
        **_interval(),
    },
)
TIPS = Table(
    "the parts that tip the most frequent confusion of each label, where at least two images are confused",
    {
        **_PAIR,
        **_PART,
        "images": _count("confused images: with this label and this prediction"),
        "difference": _number(
            "mean over confused images of the contribution to the logit of the prediction minus that to the label's"
        ),
        **_interval(),
    },
)
HEADS = Table(
    "every head: where it attends, and whether it copies classes",
    {
        **_HEAD,
        "contribution_images": _count("images over which the means are taken"),
        "distance": _number(
            "mean distance from an image token to the image tokens that it attends to, weighted by attention, in "
            "widths of a token"
        ),
        **_interval("distance_"),
        "entropy": _number("mean entropy of the attention weights of a token, in nats"),
        **_interval("entropy_"),
        "copy_share": _number("share of classes that their own row of the value-output map scores highest"),
    },
)
HEAD_MAP = Table(
    "the largest entries of the value-output map of each head, from the parameters alone",
    {
        **_HEAD,
        "pair": _count("rank, from 0, the largest first"),
        "input_class": _count("class whose embedding a token holds"),
        "input_name": _text("its name"),
        "output_class": _count("class to which the head then writes"),
        "output_name": _text("its name"),
        "score": _number("`e_in W_V W_O e_out` of both class embeddings"),
    },
)
HEAD_TOKENS = Table(
    "the image tokens through which each head adds most to the class of their image, at most one of an image",
    {
        **_HEAD,
        **_TOP,
        **_TOKEN,
        "contribution": _number(
            "contribution of the head through this token to the logit of the label, or of the prediction without a "
            "label, minus that to the mean of all logits"
        ),
        **_IMAGE_CLASSES,
    },
)
UNITS = Table(
    "every hidden unit: how often it is active, and the class that its value vector scores highest",
    {
        **_UNIT,
        "active_share": _number("share of the image tokens of the data set with a positive coefficient"),
        "coefficient": _number("largest coefficient of an image token of the data set"),
        "value_class": _count("class that the value vector scores highest"),
        "value_name": _text("its name"),
        "value_cosine": _number("cosine of the value vector with the row of that class in the class embedding"),
    },
)
UNIT_VALUES = Table(
    "the classes that the value vector of each hidden unit scores highest",
    {
        **_UNIT,
        "class_rank": _count("rank, from 0, the highest score first"),
        **_CLASS,
        "score": _number("score of the value vector for the class"),
        "cosine": _number("cosine of the value vector with the row of the class in the class embedding"),
    },
)
UNIT_TOKENS = Table(
    "the image tokens of the data set with the largest coefficients of each hidden unit, at most one of an image",
    {
        **_UNIT,
        **_TOP,
        **_TOKEN,
        "coefficient": _number("coefficient of the unit at this token"),
        **_IMAGE_CLASSES,
    },
)
UNIT_WRITERS = Table(
    f"the {TOP_UNITS} hidden units with the largest positive mean contribution to each class",
    {
        **_CATEGORY,
        **_UNIT,
        "images": _count("images of the class"),
        "listed": _count("of these, images whose list of strongest units has the unit"),
        "contribution": _number(
            "mean contribution over all images of the class, above the mean of all logits; 0 where not listed"
        ),
        **_interval(),
        "bound": _number(
            "largest error of the mean by lists that end: the sum, over images whose list lacks the unit, of the "
            "absolute contribution of the last unit listed, over `images`"
        ),
    },
)
CLASS_TOKENS = Table(
    f"the {TOP_TOKENS} image tokens with the largest logit of each class after the last block, at most one of an "
    "image, of images whose label is the class, or whose prediction without a label",
    {
        **_CATEGORY,
        **_TOP,
        **_TOKEN,
        "logit": _number("logit of the class at the token"),
    },
)

TABLES: Mapping[str, Table] = {
    "classes": CLASSES,
    "confusions": CONFUSIONS,
    "trajectory": TRAJECTORY,
    "writers": WRITERS,
    "tips": TIPS,
    "heads": HEADS,
    "head_map": HEAD_MAP,
    "head_tokens": HEAD_TOKENS,
    "units": UNITS,
    "unit_values": UNIT_VALUES,
    "unit_tokens": UNIT_TOKENS,
    "unit_writers": UNIT_WRITERS,
    "class_tokens": CLASS_TOKENS,
}
"""The tables by name."""


def interval_columns(prefix: str, ends: tuple[Array, Array]) -> dict[str, Array]:
    """Columns of both ends of an interval."""
    return {f"{prefix}low": ends[0], f"{prefix}high": ends[1]}
