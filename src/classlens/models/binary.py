"""A head with one binary logit, read as two classes that exclude each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from classlens.core.space import ClassSpace
from classlens.models.view import ModelView

NAMES = ("negative", "positive")
"""Names of the two classes, where nothing tells them."""


def as_two_classes(view: ModelView) -> ModelView:
    """The view of a model with one logit ``z`` as one of two classes with the logits 0 and ``z``.

    The softmax of ``(0, z)`` is ``(1 - σ(z), σ(z))``: probabilities, log odds and the cross-entropy are those of the
    sigmoid, and the rank of a class is 0 where ``z`` is on its side. In class space the negative class is a row of
    zeros above a copy of the head's row.
    """
    readouts = tuple(replace(readout, space=_with_zeros(readout.space)) for readout in view.readouts)
    return replace(
        view,
        readouts=readouts,
        logits_of=partial(_both, view.logits_of),
        class_names=None,
        problem_type="single_label_classification",
    )


def is_binary(view: ModelView) -> bool:
    """Whether the two classes of a view are one logit of its module."""
    return isinstance(view.logits_of, partial) and view.logits_of.func is _both


def two_names(names: Sequence[str] | None) -> Sequence[str]:
    """Names of both classes, from names of both, of the positive one, or of none."""
    if names is None:
        return NAMES
    return (f"not {names[0]}", names[0]) if len(names) == 1 and not isinstance(names, str) else names


def _with_zeros(space: ClassSpace) -> ClassSpace:
    bias = None if space.bias is None else _above(space.bias)
    return replace(space, weight=_above(space.weight), bias=bias)


def _above(row: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(row), row])


def _both(logits_of: Callable[[Any], Tensor], output: Any) -> Float[Tensor, "image 2"]:
    logit = logits_of(output)
    return torch.cat([torch.zeros_like(logit), logit], dim=1)
