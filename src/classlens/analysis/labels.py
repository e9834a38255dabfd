"""Names and colors of values of tables, in summaries and figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from classlens import palette
from classlens.explain.registry import METHODS, split_method
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


def method_label(text: str) -> Label:
    """Label of an explanation method with its options, such as ``chefer`` or ``class_gradient:loss=logit``.

    Stored ranks are named by the condition that they were measured under. A method with options takes a free color.
    """
    name, options = split_method(text)
    condition = CONDITIONS[str(options.pop("condition"))] if "condition" in options else None
    if condition is not None:
        title, color = f"rank by {condition.label}", condition.color
    elif name in METHODS:
        title, color = METHODS[name].label, METHODS[name].color
    else:  # maps of another tool
        title, color = name, None
    return Label(method_title(title, options), None if options else color)


def method_title(label: str, options: Mapping[str, Any]) -> str:
    """Label of a method followed by options, such as ``class gradient, loss double softmax``."""
    return label + "".join(f", {name} {str(value).replace('_', ' ')}" for name, value in options.items())
