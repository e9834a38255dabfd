"""The decision of a model after each block: when it commits, and how sure it is."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.charts import Lines
from classlens.analysis.experiment import RANDOM_INIT, Experiment, Reduction
from classlens.analysis.measured_store import MeasuredStore
from classlens.analysis.trajectories import CLASSES, KEY_LABELS, KEYS, NEEDS, Trajectories, by_outcome, update_of
from classlens.core.arrays import Array
from classlens.core.stats import Statistics
from classlens.core.trajectories import commitment
from classlens.tasks.tokens.conditions.registry import CLEAN


def measures(found: Trajectories) -> dict[str, Array]:
    blocks = np.arange(found.rank.shape[1])
    return {
        "committed": blocks >= commitment(found.top[..., 0])[:, None],
        "on_top": found.rank == 0,
        "entropy": found.entropy,
        "margin": found.margin,
        "log_probability": found.log_probability,
    }


def compute(store: MeasuredStore, reduction: Reduction, statistics: Statistics) -> pd.DataFrame:
    return by_outcome(reduction.values, statistics, range(store.blocks))


def _right_and_wrong(value: str, measure: str) -> Lines:
    where = {"classes": (CLASSES,), "measure": (measure,), "outcome": ("correct", "wrong"), "condition": (CLEAN,)}
    return Lines(value=value, suffix=measure, where=where, color="outcome", unit_range=False)


EXPERIMENT = Experiment(
    name="decision",
    label="When the decision falls",
    about="what the model would decide after each block: when it commits, entropy and margin, right and wrong",
    definition="The class scores after each block, of the tokens that the head pools and as it pools them. Committed: "
    "share of images whose top class stays the final one from this block on. On top: share with the class of interest "
    "on top. Entropy of the softmax in nats, log probability of the class of interest, and its margin: its logit minus "
    "the largest other one. With label groups (measure --label-groups), the same of groups: probabilities are averaged "
    "within each and renormalized, and a prediction is right where the group on top is that of the label.",
    keys=KEYS,
    needs=NEEDS,
    charts=(
        Lines(
            value="share of images that are committed",
            suffix="committed",
            where={"classes": (CLASSES,), "measure": ("committed",), "condition": (CLEAN, RANDOM_INIT)},
            color="outcome",
            dash="condition",
        ),
        _right_and_wrong("entropy of the classes (nats)", "entropy"),
        _right_and_wrong("margin of the class of interest (logits)", "margin"),
    ),
    value_labels=KEY_LABELS,
    update=update_of(measures),
    compute=compute,
)
