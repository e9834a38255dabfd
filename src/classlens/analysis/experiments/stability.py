"""How often the model changes its mind from block to block."""

from __future__ import annotations

import pandas as pd

from classlens.analysis.charts import Dots
from classlens.analysis.experiment import Experiment, Reduction
from classlens.analysis.labels import Label
from classlens.analysis.measured_store import MeasuredStore
from classlens.analysis.trajectories import CLASSES, KEY_LABELS, KEYS, NEEDS, Trajectories, by_outcome, update_of
from classlens.core.arrays import Array
from classlens.core.stats import Statistics
from classlens.core.trajectories import change_share, classes_on_top, spread, top_overlap
from classlens.tasks.tokens.conditions.registry import CLEAN

LABELS = {
    "change_share": Label("share of blocks that change the top class"),
    "top_overlap": Label("overlap of consecutive top classes"),
    "classes_on_top": Label("classes among the top classes of any block"),
    "top1_classes": Label("classes on top of any block"),
    "top1_mode_share": Label("share of blocks of the most frequent top class"),
    "top1_entropy": Label("entropy of the top class over blocks (nats)"),
}


def measures(found: Trajectories) -> dict[str, Array]:
    top1 = spread(found.top[..., 0])
    return {
        "change_share": change_share(found.top[..., 0]),
        "top_overlap": top_overlap(found.top, found.top_logit),
        "classes_on_top": classes_on_top(found.top),
        "top1_classes": top1.number,
        "top1_mode_share": top1.mode_share,
        "top1_entropy": top1.entropy,
    }


def compute(store: MeasuredStore, reduction: Reduction, statistics: Statistics) -> pd.DataFrame:
    return by_outcome(reduction.values, statistics)


EXPERIMENT = Experiment(
    name="stability",
    label="How stable the decision is",
    about="how often the top class changes from block to block, and how much the top classes overlap",
    definition="Share of consecutive blocks between which the top class changes; weighted Jaccard index of the five "
    "top classes of consecutive blocks, weighted by their softmax; number of classes among the top five of any block; "
    "number, largest share and entropy of the top-1 classes over blocks. With label groups (measure "
    "--label-groups), the same of groups. Source: LogitDynamics, 2026, there of trained heads, here in class space.",
    keys=KEYS,
    needs=NEEDS,
    charts=(
        Dots(
            value="mean over images",
            labels=("model",),
            rows="measure",
            color="outcome",
            where={"condition": (CLEAN,), "classes": (CLASSES,), "measure": tuple(LABELS)},
            unit_range=False,
        ),
    ),
    value_labels={**KEY_LABELS, **LABELS},
    update=update_of(measures),
    compute=compute,
)
