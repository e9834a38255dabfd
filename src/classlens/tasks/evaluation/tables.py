"""Tables of scores and curves from a store of `evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from classlens.core.stats import Statistics
from classlens.explain.registry import METHODS
from classlens.store.open_store import group_names, open_group
from classlens.store.schema import MEASURED
from classlens.tasks.evaluation.registry import METRICS
from classlens.tasks.evaluation.schema import require_group
from classlens.tasks.evaluation.stored_ranks import STORED_RANK
from classlens.tasks.evaluation.task import split_group

if TYPE_CHECKING:
    import pandas as pd


def tables(store: str, statistics: Statistics) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores and curves of everything that a store holds, from measured images."""
    import pandas as pd

    scores, curves = [], []
    for group in sorted(group_names(store), key=_rank):
        name, method = split_group(group)
        data, metric = open_group(store, group), METRICS[name]
        require_group(store, group, data, metric)
        # A mosaic with an unreadable quarter has no labels.
        void = data["label"].values < 0 if data.attrs["mosaics"] else False
        data = data.isel(image=(data["measured"].values == MEASURED) & ~np.asarray(void)).load()
        if not data.sizes["image"]:
            continue
        keys = {"model": data.attrs["model"], "method": method, "metric": name}
        scores += [keys | score._asdict() for score in metric.scores(data, statistics)]
        curves += [keys | point._asdict() for point in metric.points(data, statistics)]
    columns = ["model", "method", "metric"]
    return (
        pd.DataFrame(scores, columns=[*columns, "measure", "value", "low", "high", "images", "better"]),
        pd.DataFrame(curves, columns=[*columns, "curve", "x", "value", "low", "high"]),
    )


def _rank(group: str) -> tuple[int, int, str]:
    """Metrics and methods are sorted in the order of their registries; unknown names come last."""
    metric, text = split_group(group)
    return _index(metric, list(METRICS)), _index(text.partition(":")[0], [*METHODS, STORED_RANK]), text


def _index(name: str, names: list[str]) -> int:
    return names.index(name) if name in names else len(names)
