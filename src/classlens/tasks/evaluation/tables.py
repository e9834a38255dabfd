"""Tables of scores and curves from a store of `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from classlens.core.stats import Statistics, interval
from classlens.explain.registry import METHODS
from classlens.store.open_store import group_names, open_group
from classlens.store.schema import MEASURED
from classlens.tasks.evaluation.metric import Score
from classlens.tasks.evaluation.registry import METRICS
from classlens.tasks.evaluation.schema import require_group
from classlens.tasks.evaluation.stored_ranks import STORED_RANK
from classlens.tasks.evaluation.task import split_group

if TYPE_CHECKING:
    import pandas as pd


_DIFFERENCE = ("difference", "difference_low", "difference_high")


class _Row(NamedTuple):
    """A score of a method, and the images that it is measured on."""

    keys: dict[str, str]
    score: Score
    images: tuple[str, ...]

    @property
    def column(self) -> tuple[str, str]:
        """Metric and measure."""
        return self.keys["metric"], self.score.measure


def tables(store: str, statistics: Statistics) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores and curves of everything that a store holds, from measured images."""
    import pandas as pd

    rows: list[_Row] = []
    curves = []
    for group in sorted(group_names(store), key=_rank):
        name, method = split_group(group)
        data, metric = open_group(store, group), METRICS[name]
        require_group(store, group, data, metric)
        measured = data["measured"].values == MEASURED
        if data.attrs["mosaics"]:  # one with an unreadable quarter has no labels
            measured &= data["label"].values >= 0
        measured[np.array(data.attrs.get("without_map", []), dtype=int)] = False
        data = data.isel(image=measured).load()
        if not data.sizes["image"]:
            continue
        keys = {"model": data.attrs["model"], "method": method, "metric": name}
        images = tuple(data["image"].values)
        rows += [_Row(keys, score, images) for score in metric.scores(data, statistics)]
        curves += [keys | point._asdict() for point in metric.points(data, statistics)]
    columns = ["model", "method", "metric"]
    best = {column: _best([row for row in rows if row.column == column]) for column in {row.column for row in rows}}
    scores = [row.keys | row.score._asdict() | _difference(row, best[row.column], statistics) for row in rows]
    numbers = ["value", "low", "high", "images", "better", *_DIFFERENCE]
    return (
        pd.DataFrame(scores, columns=[*columns, "measure", *numbers]),
        pd.DataFrame(curves, columns=[*columns, "curve", "x", "value", "low", "high"]),
    )


def _best(column: Sequence[_Row]) -> _Row | None:
    """The row of the best method; None where neither direction is better, or no value is defined."""
    sign = {"higher": 1.0, "lower": -1.0}.get(column[0].score.better)
    defined = [row for row in column if not np.isnan(row.score.value)]
    return max(defined, key=lambda row: sign * row.score.value) if sign and defined else None


def _difference(row: _Row, best: _Row | None, statistics: Statistics) -> dict[str, float]:
    """The value minus that of the best method, with its paired bootstrap interval; NaN for other images."""
    ours, theirs = row.score.resampled, None if best is None else best.score.resampled
    if best is None or ours is None or theirs is None or row.images != best.images:
        return dict.fromkeys(_DIFFERENCE, np.nan)
    (low,), (high,) = interval((ours - theirs)[:, None], statistics)
    numbers = row.score.value - best.score.value, float(low), float(high)
    return dict(zip(_DIFFERENCE, numbers, strict=True))


def _rank(group: str) -> tuple[int, int, str]:
    """Metrics and methods are sorted in the order of their registries; unknown names come last."""
    metric, text = split_group(group)
    return _index(metric, list(METRICS)), _index(text.partition(":")[0], [*METHODS, STORED_RANK]), text


def _index(name: str, names: list[str]) -> int:
    return names.index(name) if name in names else len(names)
