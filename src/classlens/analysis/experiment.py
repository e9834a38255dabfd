"""What an experiment is: it takes a store part by part, and ends in one tidy table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy import ndarray

from classlens.analysis.charts import Chart
from classlens.analysis.store_reader import Need, Part, StoreReader
from classlens.core.stats import Statistics, estimate, flip_signs, holm

Key = tuple[str, ...]
Array = ndarray[Any, Any]


@dataclass(frozen=True)
class Found:
    """What is kept of images: values by key, ``[image, block]``, and counts that are added up, by key.

        Found.merge([experiment.update(part) for part in store.parts()])

    Any split of the images agrees (law 5): values are joined, counts are sums.
    """

    values: Mapping[Key, Array] = field(default_factory=dict)
    counts: Mapping[Key, Array] = field(default_factory=dict)

    @classmethod
    def merge(cls, parts: Sequence[Found]) -> Found:
        if not parts:
            return cls()
        return cls(
            {key: np.concatenate([part.values[key] for part in parts]) for key in parts[0].values},
            {key: sum((part.counts[key] for part in parts[1:]), parts[0].counts[key]) for key in parts[0].counts},
        )


@dataclass(frozen=True)
class Experiment:
    """One experiment: one file, one table, and the figures of that table.

    ``update`` reduces some images, ``compute`` makes the table of one store, and ``across`` adds rows that speak of
    several stores. Every table has the columns ``model``, those of ``keys``, ``block`` where it goes by blocks, and
    ``value, low, high, images``: a mean over images with its interval. Further columns are tests.
    """

    name: str
    title: str
    about: str
    """What the value is, in one sentence or two, with its source."""
    keys: tuple[str, ...]
    needs: tuple[Need, ...]
    charts: tuple[Chart, ...]
    compute: Callable[[StoreReader, Found, Statistics], pd.DataFrame]
    update: Callable[[Part], Found] = lambda _: Found()
    least_stores: int = 1
    across: Callable[[pd.DataFrame], pd.DataFrame] = lambda table: table


def averages(
    keys: Sequence[str],
    values: Mapping[Key, Array],
    how: Statistics,
    *,
    blocks: Sequence[int] | None = None,
    weights: Mapping[Key, Array] | None = None,
    groups: Array | None = None,
) -> pd.DataFrame:
    """A row for each key and block: the mean over images with its interval (see ``core.stats.estimate``).

    ``blocks`` are those of the columns of the values; None for values of one block that is told elsewhere.
    """
    names = list(values)
    columns = [(*key, block) for key in names for block in (blocks if blocks is not None else [0])]
    if not names:
        return pd.DataFrame(columns=[*keys, *(["block"] if blocks is not None else [])])
    joined = np.concatenate([values[key] for key in names], axis=1)
    weighted = None if weights is None else np.concatenate([weights[key] for key in names], axis=1)
    found = estimate(joined, how, weights=weighted, groups=groups)
    table = pd.DataFrame(columns, columns=[*keys, "block"]).assign(**found._asdict())
    return table if blocks is not None else table.drop(columns="block")


def change_of(edited: Array, unedited: Array, how: Statistics) -> dict[str, float]:
    """Columns of a row: the mean change of an image with its interval, and a two-sided permutation p value."""
    change = edited - unedited
    found = estimate(change, how)
    p = flip_signs(change, how, "two-sided")
    return {"change": found.value[0], "change_low": found.low[0], "change_high": found.high[0], "p": p[0]}


def corrected(table: pd.DataFrame, family: Sequence[str], p: str = "p") -> pd.DataFrame:
    """Add ``p_holm``: Holm's correction over the blocks of each family of rows."""
    table = table.assign(**{f"{p}_holm": np.nan})
    groups = table.groupby(list(family), sort=False).groups.values() if family else [table.index]
    for rows in groups:
        table.loc[rows, f"{p}_holm"] = holm(table.loc[rows, p].to_numpy(dtype=np.float64))
    return table


def conditions(store: StoreReader) -> tuple[str, ...]:
    """The model and, where it was measured, its random twin: the baseline of every evolution over blocks."""
    return tuple(name for name in ("clean", "random_init") if store.has(name))


TWIN = Need("random_init", optional=True)
