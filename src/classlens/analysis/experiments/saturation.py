"""In which order the final top classes settle."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.charts import Dots, Lines
from classlens.analysis.experiment import RANDOM_INIT, TWIN, Experiment, Key, Reduction, averages
from classlens.analysis.labels import Label
from classlens.analysis.measured_store import MeasuredStore, Requirement, StoredBatch
from classlens.analysis.trajectories import Trajectories, decoded_conditions
from classlens.core.arrays import Array
from classlens.core.stats import Statistics
from classlens.core.trajectories import (
    COUNTINGS,
    kept_for_order,
    order_of_saturation,
    saturation,
    shuffle_places,
    shuffled_order,
)
from classlens.tasks.tokens.conditions.registry import CLEAN

KEYS = ("condition", "counting", "measure", "place")
_ALL = "all"
"""Place of measures of all places together."""


def update(batch: StoredBatch) -> Reduction:
    """The block from whose output on each place of an image stays as it is, by condition and counting."""
    values: dict[Key, Array] = {}
    for condition in decoded_conditions(batch.store):
        found = Trajectories.of(batch, condition)
        for counting in COUNTINGS:
            values[condition, counting] = found.of_known(saturation(found.top, counting))
    return Reduction(values)


def compute(store: MeasuredStore, reduction: Reduction, statistics: Statistics) -> pd.DataFrame:
    by_block: dict[Key, Array] = {}
    overall: dict[Key, Array] = {}
    tests: dict[Key, tuple[float, float]] = {}
    blocks = range(store.blocks)
    for (condition, counting), saturated in reduction.values.items():
        known = np.isfinite(saturated[:, 0])
        whole = np.where(known[:, None], saturated, 0).astype(np.int64)
        kept = known & kept_for_order(whole, store.blocks)
        for place in range(saturated.shape[1]):
            at_place = saturated[:, place : place + 1]
            overall[condition, counting, "block", f"{place + 1}"] = at_place
            if counting == COUNTINGS[0]:
                reached = np.where(known[:, None], at_place <= np.array(blocks), np.nan)
                by_block[condition, counting, "saturated", f"{place + 1}"] = reached
        overall[condition, counting, "kept", _ALL] = np.where(known, kept, np.nan)[:, None]
        overall[condition, counting, "tau", _ALL] = np.where(kept, order_of_saturation(whole), np.nan)[:, None]
        tests[condition, counting, "tau", _ALL] = (shuffle_places(whole[kept], statistics), shuffled_order(whole[kept]))
    means = averages(KEYS, overall, statistics)
    results = [tests.get(tuple(row), (np.nan, np.nan)) for row in means[list(KEYS)].itertuples(index=False)]
    means[["p", "shuffled"]] = np.array(results, dtype=np.float64).reshape(-1, 2)
    return pd.concat([averages(KEYS, by_block, statistics, blocks=blocks), means], ignore_index=True)


EXPERIMENT = Experiment(
    name="saturation",
    label="In which order the top classes settle",
    about="from which block on the final first, second, … class stays in its place, and whether they settle in order",
    definition="Saturation of place k: the first block from whose output on the k-th class stays the final one; 0 "
    "where it never differs (exact), or the number of blocks, as the published code counts (published). Tau: strict "
    "Kendall correlation of places and blocks, over images whose first place saturates within 85 % of the blocks "
    "(kept); ties count as disagreement. p: one-sided test that permutes the places of each image, whose mean is "
    "shuffled. Source: Lioubashevski et al., 2024.",
    keys=KEYS,
    needs=(Requirement(trajectory=True), TWIN),
    charts=(
        Lines(
            value="share of images that have settled the place",
            where={"measure": ("saturated",), "condition": (CLEAN,)},
            color="place",
        ),
        Dots(
            value="mean Kendall correlation of places and blocks",
            suffix="tau",
            labels=("model", "condition"),
            color="counting",
            where={"measure": ("tau",), "condition": (CLEAN, RANDOM_INIT), "counting": COUNTINGS},
            unit_range=False,
        ),
    ),
    value_labels={
        **{f"{place}": Label(f"place {place}") for place in range(1, 6)},
        "exact": Label("counted exactly"),
        "published": Label("counted as published"),
    },
    update=update,
    compute=compute,
)
