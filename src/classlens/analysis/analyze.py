"""From stores to tables: every experiment on every store, each store read once."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from classlens.analysis.experiment import Experiment, Found
from classlens.analysis.registry import select_experiments
from classlens.analysis.store_reader import Part, StoreReader, open_readers
from classlens.core.stats import Statistics, check_statistics
from classlens.errors import require_extra
from classlens.tasks.tokens.conditions.registry import CLEAN, CONDITIONS


class Missing(NamedTuple):
    """What was not measured of a model: why, and the flag that measures it."""

    model: str
    experiment: str
    whole: bool
    """Nothing of the experiment; else a part of it."""
    reason: str


@dataclass(frozen=True)
class Analysis:
    """Tables by experiment, what is missing in them, and what they were made from."""

    tables: dict[str, pd.DataFrame]
    missing: list[Missing]
    stores: list[dict[str, Any]]
    statistics: Statistics = field(default_factory=Statistics)


def analyze(
    stores: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    experiments: Collection[str] | None = None,
    statistics: Statistics | None = None,
    report: Callable[[str, int, int], None] = lambda *_: None,
) -> Analysis:
    """Every experiment of the paper on one or more stores of ``classlens.measure``, as tidy tables.

        found = classlens.analyze(["b32.zarr", "b16.zarr"])
        found.tables["evolution"].query("tokens == 'cls'")  # pandas: model, condition, tokens, measure, block, value, …

    Every table has ``model``, the keys of its experiment, ``block`` (from 0) and ``value, low, high, images``: a mean
    over images with its bootstrap interval over images. ``p`` is never 0, and ``p_holm`` is corrected over blocks.
    Stores are read once, a part at a time, so memory does not grow with what they hold but for a few numbers an image.

    Args:
        stores: paths or URLs; the tables set them side by side, named by their models.
        experiments: some of ``classlens.analysis.registry.EXPERIMENTS``; all when left out.
        statistics: seed, permutations, resamples and confidence.
        report: called with the model, images done and images of all.

    Raises:
        ClasslensError: for what is no store, or holds no measured image of ``clean``. What a store lacks for an
            experiment is no error: it stands in ``missing`` with the flag that measures it.
    """
    wanted = select_experiments([experiments] if isinstance(experiments, str) else experiments)
    how = statistics or Statistics()
    check_statistics(how)
    require_libraries()
    given = [stores] if isinstance(stores, str | os.PathLike) else stores
    opened = open_readers(given)
    missing: list[Missing] = []
    tables: dict[str, list[pd.DataFrame]] = {experiment.name: [] for experiment in wanted}
    for store in opened:
        able = [experiment for experiment in wanted if _able(store, experiment, len(opened), missing)]
        for name, table in _tables(store, able, how, report).items():
            if table.empty:
                missing.append(Missing(store.model, name, True, "no image has a value for it"))
            else:
                tables[name].append(table)
    joined = {
        experiment.name: experiment.across(pd.concat(tables[experiment.name], ignore_index=True))
        for experiment in wanted
        if tables[experiment.name]
    }
    return Analysis(joined, missing, [_about(store) for store in opened], how)


def _able(store: StoreReader, experiment: Experiment, stores: int, missing: list[Missing]) -> bool:
    """Whether a store has what an experiment cannot do without; writes down all that it lacks."""

    def lacking(optional: bool) -> list[Missing]:
        reasons = [store.lacks(need) for need in experiment.needs if need.optional == optional]
        return [Missing(store.model, experiment.name, not optional, reason) for reason in reasons if reason]

    found = lacking(optional=False)
    if stores < experiment.least_stores:
        found.append(Missing(store.model, experiment.name, True, "models are compared: give two stores or more"))
    # Of what is not measured at all, no part need be named.
    missing += found or lacking(optional=True)
    return not found


def _tables(
    store: StoreReader,
    experiments: Sequence[Experiment],
    how: Statistics,
    report: Callable[[str, int, int], None],
) -> dict[str, pd.DataFrame]:
    # Experiments that reduce images in the same way share what they find.
    updates: dict[Callable[[Part], Found], list[Found]] = {experiment.update: [] for experiment in experiments}
    done = 0
    report(store.model, 0, store.images)
    for part in store.parts():
        for update, found in updates.items():
            found.append(update(part))
        done += part.images
        report(store.model, done, store.images)
    merged = {update: Found.merge(found) for update, found in updates.items()}
    tables = {}
    for experiment in experiments:
        table = experiment.compute(store, merged[experiment.update], how)
        table.insert(0, "model", store.model)
        tables[experiment.name] = table[table["value"].notna()].reset_index(drop=True)
    return tables


def _about(store: StoreReader) -> dict[str, Any]:
    kept = ("data", "split", "data_note", "num_classes", "pooling", "sites", "memories", "weights", "dtype", "seed")
    conditions = [name for name in ("clean", *_OTHERS) if store.has(name)]
    return {
        "model": store.model,
        "name": str(store.attrs["model"]),
        "store": store.stem,
        "images": store.images,
        "images_of_all": store.total,
        "blocks": store.blocks,
        "conditions": conditions,
        **{key: store.attrs.get(key) for key in kept},
        "versions": store.attrs.get("versions"),
    }


_OTHERS = tuple(name for name in CONDITIONS if name != CLEAN)


def require_libraries() -> None:
    """Raises ClasslensError where the libraries of the extra ``analysis`` are not installed."""
    require_extra("analysis", "scipy", "pyarrow")
