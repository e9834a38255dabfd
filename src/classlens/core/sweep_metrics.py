"""Measures of a causal sweep: one number of the logits of a pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.registry import Registry

Formula = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From logits ``[row, category]``, the target and a second class of each row to a number of each row."""


@dataclass(frozen=True)
class SweepMetric:
    """One number of the logits of each row.

    ``classes`` is its formula where outputs are classes that exclude each other, ``labels`` where each has a
    probability of its own, ``numbers`` where they are numbers; None where it has no meaning. ``rival`` says whether it
    takes a second class, ``differentiable`` whether it has a gradient.
    """

    about: str
    classes: Formula
    labels: Formula | None
    numbers: Formula | None
    rival: bool = False
    differentiable: bool = True


def _of(logits: Float[Tensor, "row category"], category: Int[Tensor, " row"]) -> Float[Tensor, " row"]:
    return logits.gather(1, category[:, None])[:, 0]


def _logit(logits: Tensor, target: Tensor, _: Tensor) -> Tensor:
    return _of(logits, target)


def _logit_difference(logits: Tensor, target: Tensor, against: Tensor) -> Tensor:
    return _of(logits, target) - _of(logits, against)


def _log_odds(logits: Tensor, target: Tensor, _: Tensor) -> Tensor:
    others = logits.scatter(1, target[:, None], -torch.inf)
    return _of(logits, target) - others.logsumexp(dim=1)


def _probability(logits: Tensor, target: Tensor, _: Tensor) -> Tensor:
    return _of(logits.softmax(dim=1), target)


def _label_probability(logits: Tensor, target: Tensor, _: Tensor) -> Tensor:
    return _of(logits, target).sigmoid()


def _rank(logits: Tensor, target: Tensor, _: Tensor) -> Tensor:
    return (logits > logits.gather(1, target[:, None])).sum(dim=1).to(logits.dtype)


SWEEP_METRICS: Registry[SweepMetric] = Registry(
    "metric",
    {
        "log_odds": SweepMetric("`log p/(1-p)` of the target", _log_odds, _logit, None),
        "logit_difference": SweepMetric(
            "logit of the target minus that of the class `against`",
            _logit_difference,
            _logit_difference,
            _logit_difference,
            rival=True,
        ),
        "logit": SweepMetric("logit of the target", _logit, _logit, _logit),
        "probability": SweepMetric("probability of the target", _probability, _label_probability, None),
        "rank": SweepMetric(
            "number of classes with a larger logit than the target; 0 is best", _rank, None, None, differentiable=False
        ),
    },
)
