"""The record of an experiment, which reduces a store batch by batch and ends in one tidy table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from classlens.analysis.charts import Chart
from classlens.analysis.labels import LABELS, Label
from classlens.analysis.measured_store import MeasuredStore, Requirement, StoredBatch
from classlens.core.arrays import Array
from classlens.core.stats import Estimate, Statistics, estimate, flip_signs, holm, ratio
from classlens.tasks.tokens.conditions.registry import CLEAN

Key = tuple[str, ...]
RANDOM_INIT = "random_init"
"""The condition of the random twin."""
TWIN = Requirement(RANDOM_INIT, optional=True)


@dataclass(frozen=True)
class Reduction:
    """An experiment's values of images by key, ``[image, block]``, and counts by key, which are summed.

    Any split of the images into batches gives the same reduction (values are joined, counts added):
    ``Reduction.merge([experiment.update(batch) for batch in store.batches()])``.
    """

    values: Mapping[Key, Array] = field(default_factory=dict)
    counts: Mapping[Key, Array] = field(default_factory=dict)

    @classmethod
    def merge(cls, reductions: Sequence[Reduction]) -> Reduction:
        """The reduction of the images of all of them, in order."""
        if not reductions:
            return cls()
        first = reductions[0]
        return cls(
            {key: np.concatenate([reduction.values[key] for reduction in reductions]) for key in first.values},
            {key: np.asarray(sum(reduction.counts[key] for reduction in reductions)) for key in first.counts},
        )


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One experiment: one file, one table, and the figures of that table.

    ``update`` reduces a batch of images, ``compute`` makes the table of one store, and ``combine`` adds rows about
    several stores. Every table has the columns ``model``, those of ``keys``, ``block`` where it goes by blocks, and
    ``value, low, high, images``: a mean over images with its interval. Further columns are tests.
    """

    name: str
    label: str
    """Heading of the table and its figures."""
    about: str
    """One line for lists of experiments."""
    definition: str
    """The meaning of the value, in a few sentences, with its source."""
    keys: tuple[str, ...]
    needs: tuple[Requirement, ...]
    charts: tuple[Chart, ...]
    compute: Callable[[MeasuredStore, Reduction, Statistics], pd.DataFrame]
    update: Callable[[StoredBatch], Reduction] = lambda _: Reduction()
    value_labels: Mapping[str, Label] = field(default_factory=dict)
    """Labels of values that only this experiment has."""
    min_stores: int = 1
    combine: Callable[[pd.DataFrame], pd.DataFrame] = lambda table: table

    @property
    def labels(self) -> Mapping[str, Label]:
        """Labels of all values in the columns ``keys``."""
        return {**LABELS, **self.value_labels}


def averages(
    keys: Sequence[str],
    values: Mapping[Key, Array],
    statistics: Statistics,
    *,
    blocks: Sequence[int] | None = None,
    weights: Mapping[Key, Array] | None = None,
    groups: Array | None = None,
) -> pd.DataFrame:
    """A row for each key and block: the mean over images with its interval (see ``core.stats.estimate``).

    ``blocks`` numbers the columns of the values. None: values have one column, and the table no column ``block``.
    """
    if not values:
        return pd.DataFrame(columns=[*keys, *(["block"] if blocks is not None else []), *Estimate._fields])
    rows = [(*key, block) for key in values for block in (blocks if blocks is not None else [0])]
    joined = np.concatenate(list(values.values()), axis=1)
    joined_weights = None if weights is None else np.concatenate([weights[key] for key in values], axis=1)
    means = estimate(joined, statistics, weights=joined_weights, groups=groups)
    table = pd.DataFrame(rows, columns=[*keys, "block"]).assign(**means._asdict())
    return table if blocks is not None else table.drop(columns="block")


def mean_of(values: Array, chosen: Array) -> Array:
    """Mean over the chosen tokens, the last dim of both; NaN where there is none."""
    return ratio(np.where(chosen, values, 0).sum(axis=-1, dtype=np.float64), chosen.sum(axis=-1))


def change_of(edited: Array, unedited: Array, statistics: Statistics) -> dict[str, float]:
    """Columns of a row: the mean change of an image with its interval, and a two-sided permutation p value."""
    change = edited - unedited
    mean = estimate(change, statistics)
    p = flip_signs(change, statistics, "two-sided")
    return {"change": mean.value[0], "change_low": mean.low[0], "change_high": mean.high[0], "p": p[0]}


def join_changes(
    table: pd.DataFrame, values: Mapping[Key, Array], unedited: Mapping[Key, Key], statistics: Statistics
) -> pd.DataFrame:
    """Add the columns of ``change_of`` to a table with a row for each key; ``unedited`` gives the key compared with."""
    changes = [
        change_of(of_images, values[unedited[key]], statistics) if key in unedited else {}
        for key, of_images in values.items()
    ]
    return table.join(pd.DataFrame(changes))


def add_holm(table: pd.DataFrame, family: Sequence[str], p: str = "p") -> pd.DataFrame:
    """Add ``p_holm``: Holm's correction over the blocks of each family of rows."""
    table = table.assign(**{f"{p}_holm": np.nan})
    groups = table.groupby(list(family), sort=False).groups.values() if family else [table.index]
    for rows in groups:
        table.loc[rows, f"{p}_holm"] = holm(table.loc[rows, p].to_numpy(dtype=np.float64))
    return table


def model_and_twin(store: MeasuredStore) -> tuple[str, ...]:
    """The condition of the model and, where it was measured, that of its random twin, the baseline over blocks."""
    return tuple(name for name in (CLEAN, RANDOM_INIT) if store.has(name))
