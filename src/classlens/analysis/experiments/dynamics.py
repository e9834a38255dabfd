"""How sure the model becomes over depth, and how its two final classes compete."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.charts import Dots
from classlens.analysis.experiment import Experiment, Reduction
from classlens.analysis.labels import Label
from classlens.analysis.measured_store import MeasuredStore
from classlens.analysis.trajectories import (
    CLASSES,
    GROUPS,
    KEY_LABELS,
    KEYS,
    NEEDS,
    Trajectories,
    by_outcome,
    update_of,
)
from classlens.core.arrays import Array
from classlens.core.stats import Statistics
from classlens.core.trajectories import biggest_change, reciprocal_rank, two_class_measures
from classlens.tasks.tokens.conditions.registry import CLEAN

LABELS = {
    "entropy_area": Label("area under the entropy (nats)"),
    "reciprocal_rank_area": Label("area under the reciprocal rank"),
    "log_probability_area": Label("area under |log probability|"),
    "entropy_block": Label("block of the biggest fall of entropy"),
    "reciprocal_rank_block": Label("block of the biggest rise of reciprocal rank"),
    "log_probability_block": Label("block of the biggest rise of log probability"),
    "area_for": Label("area in favor of the first class"),
    "area_against": Label("area in favor of the second class"),
    "change_of_mind": Label("change of mind"),
    "time_to_decision": Label("time to decision (share of blocks)"),
}
_DRAWN = ("entropy_area", "reciprocal_rank_area", "log_probability_area", "change_of_mind", "time_to_decision")


def measures(found: Trajectories) -> dict[str, Array]:
    ranks = reciprocal_rank(np.maximum(found.rank, 0), found.count)  # -1 for images that are not known
    two = two_class_measures(found.final_logit[..., 0] - found.final_logit[..., 1])
    rising = {"entropy": -found.entropy, "reciprocal_rank": ranks, "log_probability": found.log_probability}
    return {
        **{f"{name}_area": np.abs(of_images).sum(axis=1) for name, of_images in rising.items()},
        # The block that makes the change, between its input and its output.
        **{f"{name}_block": 1 + biggest_change(of_images) for name, of_images in rising.items()},
        **two._asdict(),
    }


def compute(store: MeasuredStore, reduction: Reduction, statistics: Statistics) -> pd.DataFrame:
    return by_outcome(reduction.values, statistics)


def _dots(classes: str, value: str, suffix: str = "") -> Dots:
    where = {"condition": (CLEAN,), "classes": (classes,), "measure": _DRAWN}
    return Dots(
        value=value,
        suffix=suffix,
        labels=("model",),
        rows="measure",
        color="outcome",
        where=where,
        unit_range=False,
    )


EXPERIMENT = Experiment(
    name="dynamics",
    label="How sure the model becomes",
    about="areas of entropy, rank and probability over blocks, and how the two final classes compete",
    definition="Sums over blocks of the entropy, of the reciprocal rank 1/(rank + 1) - 1/C, and of the absolute log "
    "probability of the class of interest; and the block that changes each of them most. Of the two classes on top at "
    "the end, with d the log odds of the first against the second after each block: sums of d where it is positive and "
    "of -d where it is negative; change of mind, min(0, d at the end) - min d; and time to decision, the share of "
    "blocks from which on d is never negative. With label groups (measure --label-groups), the same of groups, whose "
    "probabilities are averaged within each and renormalized first. Source: Hu, Lepori and Franke, 2025.",
    keys=KEYS,
    needs=NEEDS,
    charts=(
        _dots(CLASSES, "mean over images"),
        _dots(GROUPS, "mean over images, of groups of classes", suffix="groups"),
    ),
    value_labels={**KEY_LABELS, **LABELS},
    update=update_of(measures),
    compute=compute,
)
