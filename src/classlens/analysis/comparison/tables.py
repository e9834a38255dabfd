"""The tables of a comparison: their names and columns, with the meaning of each."""

from __future__ import annotations

from collections.abc import Mapping

from classlens.analysis.atlas.tables import Column, Table

KINDS = BROKEN, FIXED, CHANGED, SAME = "broken", "fixed", "changed", "same"
"""Flips of an image, in the order in which they are listed."""
TOP_CLASSES = 5
"""Classes of a part in the table ``head_classes``."""


def _number(about: str) -> Column:
    return Column("float64", about)


def _count(about: str) -> Column:
    return Column("int64", about)


def _text(about: str) -> Column:
    return Column("str", about)


def _interval(prefix: str) -> dict[str, Column]:
    return {
        f"{prefix}low": _number("lower end of its interval"),
        f"{prefix}high": _number("upper end of its interval"),
    }


def _sides(about: str, *, intervals: bool = True) -> dict[str, Column]:
    sides = {}
    for side in ("first", "second"):
        sides[side] = _number(f"{about} of the {side} store")
        if intervals:
            sides |= _interval(f"{side}_")
    return sides


_DIFFERENCE = {
    "difference": _number("second minus first, over the same images"),
    **_interval("difference_"),
}
_FLIPS = {
    "fixed": _count("images that the first predicts wrong and the second right"),
    "broken": _count("images that the first predicts right and the second wrong"),
}
_PART = {
    "sublayer": _text("`attn` or `mlp`"),
    "block": _count("block, from 0"),
    "head": _count("head of the block, from 0; -1 for an MLP, which counts as a whole"),
}

SUMMARY = Table(
    "measures of all images, side by side",
    {
        "measure": _text("name of the measure"),
        "images": _count("images over which it is taken, the same of both"),
        **_sides("value"),
        **_DIFFERENCE,
        "p": _number("exact two-sided p value of McNemar's test; for accuracy alone"),
    },
)
CLASSES = Table(
    "every class with images: how often both predict it right, from the largest loss to the largest gain",
    {
        "class_name": _text("name of the class"),
        "images": _count("images with this label"),
        **_sides("share of right predictions"),
        **_DIFFERENCE,
        **_FLIPS,
        "p": _number("exact two-sided p value of McNemar's test"),
        "p_adjusted": _number("the same, corrected over all classes"),
    },
)
IMAGES = Table(
    "every image of both: its predictions, the broken and fixed ones first, then the surest predictions of the second",
    {
        "image": _text("name of the image in the first store"),
        "image_second": _text("its name in the second store"),
        "index_first": _count("its index in the first store"),
        "index_second": _count("its index in the second store"),
        "label": _text("label that both stores give; empty without one, or where they differ"),
        "prediction_first": _text("prediction of the first"),
        "prediction_second": _text("prediction of the second"),
        "confidence_first": _number("its probability"),
        "confidence_second": _number("its probability"),
        "kind": _text(
            "`broken`: right, then wrong; `fixed`: wrong, then right; `changed`: another prediction, neither of them "
            "known to be right; `same`: the same prediction"
        ),
        "commitment_first": _number("depth from which on the first stays with its prediction, as share of all blocks"),
        "commitment_second": _number("the same of the second"),
    },
)
FLIPS = Table(
    "pairs of predictions that differ, by label, the most frequent first",
    {
        "label": IMAGES.columns["label"],
        "first": _text("prediction of the first"),
        "second": _text("prediction of the second"),
        "kind": _text("`broken`, `fixed` or `changed`"),
        "images": _count("number of images"),
    },
)
HEADS = Table(
    "every head and MLP: how its mean contribution to the logit of the label changed, the largest effect first",
    {
        **_PART,
        "images": _count("labeled images with contributions in both stores"),
        **_sides("mean contribution above the mean of all logits,", intervals=False),
        **_DIFFERENCE,
        "effect": _number("mean difference over the standard deviation of the differences of images"),
        "p": _number("two-sided p value of the paired t test"),
        "p_adjusted": _number("the same, corrected over all heads and MLPs"),
    },
)
HEAD_CLASSES = Table(
    f"the {TOP_CLASSES} classes of two images or more in which each head and MLP changed most",
    {
        **_PART,
        "class_name": _text("label of the images"),
        "images": _count("images with this label"),
        **_sides("mean contribution above the mean of all logits,", intervals=False),
        **_DIFFERENCE,
    },
)
TRAJECTORY = Table(
    "share of right answers that the model would give after each depth; paired where both have the same blocks",
    {
        "depth": _number("blocks passed, as a share of all: 0 are the embeddings, 1 is the output"),
        "block": _count("blocks passed"),
        "images": _count("labeled images"),
        **_sides("share of right answers"),
        **_DIFFERENCE,
    },
)

TABLES: Mapping[str, Table] = {
    "summary": SUMMARY,
    "classes": CLASSES,
    "images": IMAGES,
    "flips": FLIPS,
    "heads": HEADS,
    "head_classes": HEAD_CLASSES,
    "trajectory": TRAJECTORY,
}
"""The tables by name."""
