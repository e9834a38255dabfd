"""Numbers of an image that a gallery colors, filters and sorts by: one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray

from classlens.analysis.atlas.stored import AtlasStore, NothingAttributed
from classlens.analysis.cross_fitting import cross_fitted_doubt
from classlens.analysis.experiment import mean_of
from classlens.analysis.measured_store import MeasuredStore, Requirement, StoredBatch
from classlens.analysis.outliers import token_kinds
from classlens.analysis.trajectories import Trajectories
from classlens.core.arrays import Array
from classlens.core.stats import Statistics, ratio
from classlens.core.trajectories import commitment, two_class_measures
from classlens.registry import Registry
from classlens.tasks.tokens.attribution.schema import ATTRIBUTION, OF
from classlens.tasks.tokens.conditions.registry import CLEAN
from classlens.tasks.tokens.schema import NORM

OfBatch = Callable[[StoredBatch], Array]
OfImages = Callable[[MeasuredStore, pd.DataFrame, Statistics], Array | str]
"""Values of all images of a store, of which ``index`` and ``correct`` are known; or why there are none."""


@dataclass(frozen=True, kw_only=True)
class ImageColumn:
    """A number of each image: one row of ``COLUMNS``."""

    label: str
    about: str
    kind: Literal["share", "number", "whole"] = "number"
    """A share from 0 to 1, any number, or a whole number."""
    lacks: Callable[[MeasuredStore], str | None]
    """Why a store cannot give it, and the option that measures it; None where it can."""
    of_batch: OfBatch | None = None
    """Values of the images of a batch; or ``of_images``, where an image's value depends on others."""
    of_images: OfImages | None = None


def _needs(requirement: Requirement) -> Callable[[MeasuredStore], str | None]:
    return lambda store: store.lacks(requirement)


def _lacks_attribution(store: MeasuredStore) -> str | None:
    return None if store.has(ATTRIBUTION) else "contributions were not measured: add --attribution"


_DECISION = _needs(Requirement(trajectory=True))
_LAST_BLOCK = _needs(Requirement(sites=("resid_post",)))
_NORMS = _needs(Requirement(norms=True))


def _trajectory(values: Callable[[Trajectories], Array]) -> OfBatch:
    """Values of decisions; NaN for images without one."""

    def of_batch(batch: StoredBatch) -> Array:
        trajectories = Trajectories.of(batch, CLEAN)
        return np.asarray(trajectories.of_known(values(trajectories))[:, 0])

    return of_batch


def _changes(trajectories: Trajectories) -> Array:
    top1 = trajectories.top[..., 0]
    return np.asarray((top1[:, 1:] != top1[:, :-1]).sum(axis=1))


def _change_of_mind(trajectories: Trajectories) -> Array:
    final = trajectories.final_logit
    return np.asarray(two_class_measures(final[..., 0] - final[..., 1]).change_of_mind)


def _class_on_top(batch: StoredBatch) -> Array:
    return np.asarray(batch.last_block("rank", "resid_post") == 0)


def tokens_on_top(batch: StoredBatch) -> Float[ndarray, " images"]:
    """Share of image tokens that have the class of interest on top after the last block."""
    return np.asarray(_class_on_top(batch)[:, batch.store.positions("image")].mean(axis=1))


def context_lead(batch: StoredBatch) -> Float[ndarray, " images"]:
    """Share of context tokens with the class on top minus that of class tokens; NaN without either kind."""
    image = batch.store.positions("image")
    on_top, shows = _class_on_top(batch)[:, image], batch.values("class_token")[:, image]
    return np.asarray(mean_of(on_top, shows == 0) - mean_of(on_top, shows == 1))


def largest_norm(batch: StoredBatch) -> Float[ndarray, " images"]:
    """Largest norm of an image token relative to the median of the image's tokens, at the block where it is largest."""
    norms = batch.values(NORM)[..., batch.store.positions("image")].astype(np.float64)
    return np.asarray(ratio(norms.max(axis=-1), np.median(norms, axis=-1)).max(axis=1))


def outlier_tokens(batch: StoredBatch) -> Float[ndarray, " images"]:
    """Number of image tokens with an outlier norm, after the block that has most."""
    return np.asarray(token_kinds(batch)["outlier"].sum(axis=-1).max(axis=1).astype(np.float64))


def attention_lead(store: MeasuredStore, images: pd.DataFrame, _: Statistics) -> Float[ndarray, " images"] | str:
    """Logit of the prediction above the mean class that heads add, minus that which MLPs add; or why there is none."""
    try:
        contributions = AtlasStore(store.url)
    except NothingAttributed as error:
        return str(error)
    values = np.full(store.total_images, np.nan)
    prediction, mean = OF.index("prediction"), OF.index("mean")
    for batch in contributions.batches():
        heads = batch.values(ATTRIBUTION, "head_contribution").astype(np.float64)
        mlps = batch.values(ATTRIBUTION, "mlp_contribution").astype(np.float64)
        lead = np.nansum(heads, axis=(2, 3)) - mlps.sum(axis=2)  # NaN stands for heads that a block does not have
        values[batch.images] = lead[:, prediction] - lead[:, mean]
    return np.asarray(values[images["index"]])


COLUMNS: Registry[ImageColumn] = Registry(
    "gallery column",
    {
        "confidence": ImageColumn(
            label="Confidence",
            about="probability of the prediction",
            kind="share",
            lacks=_needs(Requirement()),
            of_batch=lambda batch: batch.values("confidence"),
        ),
        "margin": ImageColumn(
            label="Margin",
            about="largest logit minus the second, at the output",
            lacks=_DECISION,
            of_batch=_trajectory(lambda given: given.top_logit[:, -1, 0] - given.top_logit[:, -1, 1]),
        ),
        "entropy": ImageColumn(
            label="Entropy",
            about="entropy of the output over all classes, in nats",
            lacks=_DECISION,
            of_batch=_trajectory(lambda given: given.entropy[:, -1]),
        ),
        "doubt": ImageColumn(
            label="Doubt",
            about="probability of being wrong, by a regression on the decisions after every block that was fitted on "
            "other images",
            kind="share",
            lacks=_DECISION,
            of_images=cross_fitted_doubt,
        ),
        "commitment": ImageColumn(
            label="Commitment",
            about="first block after which the prediction is on top and stays there",
            kind="whole",
            lacks=_DECISION,
            of_batch=_trajectory(lambda given: commitment(given.top[..., 0])),
        ),
        "changes": ImageColumn(
            label="Changes",
            about="number of blocks that put another class on top",
            kind="whole",
            lacks=_DECISION,
            of_batch=_trajectory(_changes),
        ),
        "change_of_mind": ImageColumn(
            label="Change of mind",
            about="how far the runner-up of the output was ahead of the prediction, at most, in logits",
            lacks=_DECISION,
            of_batch=_trajectory(_change_of_mind),
        ),
        "on_top": ImageColumn(
            label="Tokens with the class",
            about="share of image tokens that have the class on top after the last block",
            kind="share",
            lacks=_LAST_BLOCK,
            of_batch=tokens_on_top,
        ),
        "context_lead": ImageColumn(
            label="Context lead",
            about="share of context tokens with the class on top minus that of tokens that show the class",
            lacks=_needs(Requirement(sites=("resid_post",), masks=True)),
            of_batch=context_lead,
        ),
        "largest_norm": ImageColumn(
            label="Largest norm",
            about="largest norm of an image token, in medians of the image, at the block where it is largest",
            lacks=_NORMS,
            of_batch=largest_norm,
        ),
        "outlier_tokens": ImageColumn(
            label="Outlier tokens",
            about="number of image tokens with an outlier norm, after the block that has most",
            kind="whole",
            lacks=_NORMS,
            of_batch=outlier_tokens,
        ),
        "attention_lead": ImageColumn(
            label="Attention lead",
            about="what heads add to the logit of the prediction, above the mean class, minus what MLPs add",
            lacks=_lacks_attribution,
            of_images=attention_lead,
        ),
    },
)
