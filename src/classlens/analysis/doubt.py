"""Scores of doubt: how likely a prediction is to be wrong, from what the model would decide after each block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from classlens.analysis.measured_store import StoredBatch
from classlens.core.arrays import Array
from classlens.core.trajectories import change_share, classes_on_top, commitment, spread, top_overlap
from classlens.registry import Registry
from classlens.tasks.tokens.schema import TRAJECTORY


class Decisions(NamedTuple):
    """Decisions of images as `measure` stores them; depth 0 is the embeddings, the last depth the model's output.

    Ranks and logits of the class of interest, which may be the label, are no part of it: no score of doubt sees them.
    """

    top: Int[ndarray, "images depths k"]
    top_logit: Float[ndarray, "images depths k"]
    final_logit: Float[ndarray, "images depths k"]
    logsumexp: Float[ndarray, "images depths"]
    entropy: Float[ndarray, "images depths"]

    @classmethod
    def of(cls, batch: StoredBatch) -> Decisions:
        """Those of the images of a batch."""
        return cls(*(batch.values(f"{TRAJECTORY}_{name}") for name in cls._fields))

    @classmethod
    def joined(cls, parts: Sequence[Decisions]) -> Decisions:
        """Those of several batches, in order."""
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def part(self, chosen: Array) -> Decisions:
        """Those of some images."""
        return Decisions(*(values[chosen] for values in self))

    @property
    def largest_probability(self) -> Float[ndarray, "images depths"]:
        return np.asarray(np.exp(self.top_logit[..., 0] - self.logsumexp))

    @property
    def margin(self) -> Float[ndarray, "images depths"]:
        """Largest logit minus the second."""
        return np.asarray(self.top_logit[..., 0] - self.top_logit[..., 1])


@dataclass(frozen=True, kw_only=True)
class DoubtMethod:
    """One score of doubt: one row of ``DOUBT_METHODS``."""

    label: str
    about: str
    features: Callable[[Decisions], Array]
    """``images``: the doubt itself; or ``images, features`` from which a logistic regression predicts wrong ones."""


def fit_doubt(
    method: DoubtMethod, decisions: Decisions, wrong: Bool[ndarray, " images"]
) -> Callable[[Decisions], Float[ndarray, " images"]]:
    """The doubt of a method in decisions; one that has features learns from these decisions, which are wrong or not."""

    def direct(given: Decisions) -> Float[ndarray, " images"]:
        return np.asarray(method.features(given), dtype=np.float64)

    features = method.features(decisions)
    if features.ndim == 1:
        return direct
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=10_000)).fit(features, wrong)

    def probability(given: Decisions) -> Float[ndarray, " images"]:
        return np.asarray(regression.predict_proba(method.features(given))[:, 1], dtype=np.float64)

    return probability


def one_minus_largest(decisions: Decisions) -> Float[ndarray, " images"]:
    """One minus the largest probability of the output, as odds of the others: sure images do not tie at 0."""
    logits = decisions.top_logit[:, -1].astype(np.float64)
    others = np.expm1(decisions.logsumexp[:, -1] - logits[:, 0])
    # Near 0 the log-sum-exp is rounding, and the next classes on top are all that counts.
    others = np.maximum(others, np.exp(logits[:, 1:] - logits[:, :1]).sum(axis=1))
    return np.asarray(others / (1 + others))


def trajectory_features(decisions: Decisions) -> Float[ndarray, "images features"]:
    """Features by depth, and of the whole trajectory; their number does not grow with that of the classes.

    By depth: entropy, largest probability, margin, and log probability of the final top class. Of the whole:
    commitment, share of changes of the top class, overlap of the top classes at consecutive depths, number of classes
    among them, and number, largest share and entropy of the top-1 classes.
    """
    top, top1 = decisions.top, decisions.top[..., 0]
    by_depth = [
        decisions.entropy,
        decisions.largest_probability,
        decisions.margin,
        decisions.final_logit[..., 0] - decisions.logsumexp,
    ]
    whole = [
        commitment(top1),
        change_share(top1),
        top_overlap(top, decisions.top_logit),
        classes_on_top(top),
        *spread(top1),
    ]
    return np.nan_to_num(np.concatenate([*by_depth, np.stack(whole, axis=1)], axis=1, dtype=np.float64))


DOUBT_METHODS: Registry[DoubtMethod] = Registry(
    "doubt method",
    {
        "max_softmax": DoubtMethod(
            label="largest softmax",
            about="one minus the largest probability of the output",
            features=one_minus_largest,
        ),
        "margin": DoubtMethod(
            label="margin",
            about="second logit of the output minus the largest",
            features=lambda decisions: -decisions.margin[:, -1],
        ),
        "entropy": DoubtMethod(
            label="entropy",
            about="entropy of the output",
            features=lambda decisions: decisions.entropy[:, -1],
        ),
        "energy": DoubtMethod(
            label="energy",
            about="minus the log-sum-exp of the logits of the output",
            features=lambda decisions: -decisions.logsumexp[:, -1],
        ),
        "top_logits": DoubtMethod(
            label="top logits",
            about="logistic regression on the largest logits of the output",
            features=lambda decisions: decisions.top_logit[:, -1],
        ),
        "trajectory": DoubtMethod(
            label="trajectory",
            about="logistic regression on features of the decisions after every block",
            features=trajectory_features,
        ),
    },
)
