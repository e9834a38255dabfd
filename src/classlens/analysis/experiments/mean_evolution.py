"""The evolution of several models on one axis of depth, and their mean."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens import palette
from classlens.analysis.charts import Lines
from classlens.analysis.experiment import Experiment, Key, Reduction, averages
from classlens.analysis.experiments import evolution
from classlens.analysis.labels import Label
from classlens.analysis.measured_store import MeasuredStore, Requirement
from classlens.core.arrays import Array
from classlens.core.stats import Statistics
from classlens.tasks.tokens.conditions.registry import CLEAN

KEYS = ("tokens", "depth")
MEAN = "mean"


def compute(store: MeasuredStore, reduction: Reduction, statistics: Statistics) -> pd.DataFrame:
    """Depth is the share of blocks passed: 1 after the last one."""
    identifiability: dict[Key, Array] = {
        (tokens,): values
        for (condition, tokens, measure), values in reduction.values.items()
        if (condition, measure) == (CLEAN, "identifiability")
    }
    table = averages(("tokens",), identifiability, statistics, blocks=range(store.blocks))
    table["block"] = (table["block"] + 1) / store.blocks
    return table.rename(columns={"block": "depth"})


def add_mean_of_models(table: pd.DataFrame) -> pd.DataFrame:
    """Add the mean over models, interpolated to the depths of the deepest model, from where all models have values."""
    models = table["model"].unique()
    means = []
    for tokens, rows in table.groupby("tokens", sort=False):
        lines = [rows[rows["model"] == model].sort_values("depth") for model in models]
        lines = [line for line in lines if len(line)]
        start = max(line["depth"].iloc[0] for line in lines)
        grid = max(lines, key=len)["depth"].to_numpy()
        grid = grid[grid >= start - 1e-9]
        values = np.mean([np.interp(grid, line["depth"], line["value"]) for line in lines], axis=0)
        means.append(
            pd.DataFrame({"model": MEAN, "tokens": tokens, "depth": grid, "value": values, "models": len(lines)})
        )
    return pd.concat([table, *means], ignore_index=True)


EXPERIMENT = Experiment(
    name="mean_evolution",
    label="The evolution of all models, by depth",
    about="all models on one axis of depth, and their mean",
    definition="Class identifiability over the share of blocks passed, for every model, and the mean of the models "
    "(interpolated to the depths of the deepest; each model counts once).",
    keys=KEYS,
    needs=(Requirement(sites=("resid_post",)),),
    charts=(Lines(value="class identifiability", x="depth", color="model", rows="tokens", columns=None),),
    value_labels={MEAN: Label("mean of the models", palette.BLACK)},
    update=evolution.update,
    compute=compute,
    combine=add_mean_of_models,
    min_stores=2,
)
