"""How values of tables are named and colored where people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from classlens import palette
from classlens.tasks.tokens.conditions.registry import CONDITIONS


class Label(NamedTuple):
    """The text of a value, and its color in figures; without a color it takes a free one."""

    text: str
    color: str | None = None


LABELS: Mapping[str, Label] = {
    "cls": Label("[CLS]", palette.CLS),
    "image": Label("image tokens", palette.IMAGE_TOKENS),
    "attn": Label("attention", palette.BLUE),
    "mlp": Label("MLP", palette.VERMILLION),
    "attn_out": Label("attention output"),
    "mlp_out": Label("MLP output"),
    "resid_post": Label("residual stream"),
    **{name: Label(condition.label, condition.color) for name, condition in CONDITIONS.items()},
}
"""Values that several experiments share: kinds of tokens, sublayers, sites and conditions."""


def label_text(value: object, labels: Mapping[str, Label]) -> str:
    """The text of a value; a value without a label is its own text."""
    return labels[str(value)].text if value in labels else str(value)
