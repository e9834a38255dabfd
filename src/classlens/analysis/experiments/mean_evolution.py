"""The evolution of several models on one axis of depth, and their mean."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.charts import Lines
from classlens.analysis.experiment import Array, Experiment, Found, Key, averages
from classlens.analysis.experiments import evolution
from classlens.analysis.store_reader import Need, StoreReader
from classlens.core.stats import Statistics

KEYS = ("tokens", "depth")
MEAN = "mean"


def compute(store: StoreReader, found: Found, how: Statistics) -> pd.DataFrame:
    """Depth is the share of blocks passed: 1 after the last one."""
    clean: dict[Key, Array] = {
        (tokens,): values
        for (condition, tokens, measure), values in found.values.items()
        if (condition, measure) == ("clean", "identifiability")
    }
    table = averages(("tokens",), clean, how, blocks=range(store.blocks))
    table["block"] = (table["block"] + 1) / store.blocks
    return table.rename(columns={"block": "depth"})


def mean_of_models(table: pd.DataFrame) -> pd.DataFrame:
    """Add the mean over models, each interpolated to the depths of the deepest from where all of them have begun."""
    models = table["model"].unique()
    added = []
    for tokens, rows in table.groupby("tokens", sort=False):
        lines = [rows[rows["model"] == model].sort_values("depth") for model in models]
        lines = [line for line in lines if len(line)]
        start = max(line["depth"].iloc[0] for line in lines)
        grid = max(lines, key=len)["depth"].to_numpy()
        grid = grid[grid >= start - 1e-9]
        values = np.mean([np.interp(grid, line["depth"], line["value"]) for line in lines], axis=0)
        mean = pd.DataFrame({"model": MEAN, "tokens": tokens, "depth": grid, "value": values, "models": len(lines)})
        added.append(mean)
    return pd.concat([table, *added], ignore_index=True)


EXPERIMENT = Experiment(
    name="mean_evolution",
    title="The evolution of all models, by depth",
    about="Class identifiability over the share of blocks passed, for every model, and the mean of the models "
    "(interpolated to the depths of the deepest; each model counts once).",
    keys=KEYS,
    needs=(Need(sites=("resid_post",)),),
    charts=(Lines(value="class identifiability", x="depth", color="model", rows="tokens", columns=None),),
    update=evolution.update,
    compute=compute,
    across=mean_of_models,
    least_stores=2,
)
