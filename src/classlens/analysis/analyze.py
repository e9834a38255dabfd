"""From stores to tables: every experiment on every store, each store read once."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from classlens.analysis.experiment import Experiment, Reduction
from classlens.analysis.image_table import CONTENT, image_rows
from classlens.analysis.measured_store import MeasuredStore, StoredBatch, open_measured_stores
from classlens.analysis.pairs import compare
from classlens.analysis.registry import EXPERIMENTS
from classlens.core.arguments import AnyPath
from classlens.core.path_arguments import checked_with_home
from classlens.core.stats import Statistics
from classlens.errors import ClasslensError
from classlens.extras import require_extras_of
from classlens.tasks.tokens.conditions.registry import CONDITIONS


class Missing(NamedTuple):
    """Data that a store lacks for an experiment: the reason, and the option that measures it.

    Attributes:
        model: the model, as in the tables.
        experiment: name of the experiment.
        whole: True where the experiment has no rows of this model, False where only some are missing.
        reason: what was not measured, and how to measure it.
    """

    model: str
    experiment: str
    whole: bool
    reason: str


@dataclass(frozen=True)
class AnalyzeResult:
    """The tables of an analysis, what is missing in them, and the stores they come from.

    Attributes:
        tables: a tidy table for each experiment, by its name; without a row, an experiment has no table.
        missing: data that a store lacks for an experiment.
        stores: facts of each store: model, data, images, blocks, conditions, versions.
        statistics: the settings of intervals and tests.
        images: one row for each image of each store: label, prediction and its confidence, the block from which on the
            prediction stays on top (``commitment``), and the rank of the class of interest after each block.
        pairs: differences between every two stores of the same images, image by image; empty without such stores.
        flips: the images of ``pairs`` with other predictions.
    """

    tables: dict[str, pd.DataFrame]
    missing: list[Missing]
    stores: list[dict[str, Any]]
    statistics: Statistics = field(default_factory=Statistics)
    images: pd.DataFrame = field(default_factory=pd.DataFrame)
    pairs: pd.DataFrame = field(default_factory=pd.DataFrame)
    flips: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def all_tables(self) -> dict[str, pd.DataFrame]:
        """The tables with rows, by the name of their file: those of experiments, then of images and pairs."""
        more = {"images": self.images, "pairs": self.pairs, "flips": self.flips}
        return {**self.tables, **{name: table for name, table in more.items() if not table.empty}}


@checked_with_home
def analyze(
    stores: AnyPath | Sequence[AnyPath] | Mapping[str, AnyPath],
    *,
    experiments: str | Collection[str] = "all",
    statistics: Statistics | None = None,
    report: Callable[[str, int, int], None] = lambda *_: None,
) -> AnalyzeResult:
    """Tables of the paper's experiments, from one or more stores of ``classlens.measure``.

    Every table has ``model``, the keys of its experiment, ``block`` (from 0) where it goes by blocks, and ``value, low,
    high, images``: a mean over images with its bootstrap interval over images. ``p`` is never 0, and ``p_holm`` is
    corrected over blocks. Each store is read once, batch by batch, and kept are a few numbers for each image.

    Args:
        stores: paths or URLs of stores, which tables name by their models; or a mapping of names of your own to them,
            such as ``{"before": "a.zarr", "after": "b.zarr"}``.
        experiments: names in ``classlens.EXPERIMENTS``, or ``"all"``.
        statistics: seed, permutations, resamples and confidence; the defaults of ``Statistics`` when left out.
        report: called with the model, the images done and the images of its store.

    Returns:
        The tables. Data that a store lacks for an experiment is no error: ``missing`` names the option that measures
        it.

    Raises:
        ClasslensError: a path without a store, a store without a measured image of ``clean``, an unknown experiment, or
            statistics out of range.

    Examples:
        >>> import classlens
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> with TemporaryDirectory() as folder:
        ...     image = Path(folder, "images", "cat", "black.png")
        ...     image.parent.mkdir(parents=True)
        ...     Image.new("RGB", (32, 32)).save(image)
        ...     store = Path(folder, "builtin.zarr")
        ...     _ = classlens.measure("builtin:cifar10", f"folder:{folder}/images", store)
        ...     result = classlens.analyze(store, experiments="evolution")
        >>> result.tables["evolution"].query("tokens == 'cls' and measure == 'identifiability'")["block"].tolist()
        [0, 1, 2, 3, 4, 5]
    """
    chosen = [_experiment(name) for name in EXPERIMENTS.select(experiments)]
    statistics = statistics or Statistics()
    require_extras_of("analyze")
    opened = open_measured_stores([stores] if isinstance(stores, str | os.PathLike) else stores)
    missing: list[Missing] = []
    tables: dict[str, list[pd.DataFrame]] = {experiment.name: [] for experiment in chosen}
    images: list[pd.DataFrame] = []
    for store in opened:
        possible = [experiment for experiment in chosen if _is_possible(store, experiment, len(opened), missing)]
        for name, table in _tables(store, possible, statistics, report, images).items():
            if table.empty:
                missing.append(Missing(store.model, name, True, "no image has a value for it"))
            else:
                tables[name].append(table)
    joined = {
        experiment.name: experiment.combine(pd.concat(tables[experiment.name], ignore_index=True))
        for experiment in chosen
        if tables[experiment.name]
    }
    rows = pd.concat(images, ignore_index=True)
    pairs, flips = compare(opened, rows, statistics)
    facts = [_facts(store) for store in opened]
    return AnalyzeResult(joined, missing, facts, statistics, rows.drop(columns=CONTENT, errors="ignore"), pairs, flips)


def _experiment(name: str) -> Experiment:
    experiment = EXPERIMENTS[name]
    if experiment.name != name:
        raise ClasslensError(f"experiment {name!r} has a record of the name {experiment.name!r}: give both one name")
    return experiment


def _is_possible(store: MeasuredStore, experiment: Experiment, stores: int, missing: list[Missing]) -> bool:
    """Whether a store meets all requirements that are not optional; appends unmet ones to ``missing``."""

    def unmet(optional: bool) -> list[Missing]:
        reasons = [store.lacks(need) for need in experiment.needs if need.optional == optional]
        return [Missing(store.model, experiment.name, not optional, reason) for reason in reasons if reason]

    obstacles = unmet(optional=False)
    if stores < experiment.min_stores:
        obstacles.append(Missing(store.model, experiment.name, True, "models are compared: give two stores or more"))
    # Parts are of no interest where the whole experiment is missing.
    missing += obstacles or unmet(optional=True)
    return not obstacles


def _tables(
    store: MeasuredStore,
    experiments: Sequence[Experiment],
    statistics: Statistics,
    report: Callable[[str, int, int], None],
    images: list[pd.DataFrame],
) -> dict[str, pd.DataFrame]:
    """The tables of a store; its ``image_rows`` are appended to ``images``."""
    # Experiments with the same update share its reductions.
    reductions: dict[Callable[[StoredBatch], Reduction], list[Reduction]] = {
        experiment.update: [] for experiment in experiments
    }
    done = 0
    report(store.model, 0, store.images)
    for batch in store.batches():
        for update, of_batches in reductions.items():
            of_batches.append(update(batch))
        images.append(image_rows(batch))
        done += batch.images
        report(store.model, done, store.images)
    merged = {update: Reduction.merge(of_batches) for update, of_batches in reductions.items()}
    tables = {}
    for experiment in experiments:
        table = experiment.compute(store, merged[experiment.update], statistics)
        table.insert(0, "model", store.model)
        tables[experiment.name] = table[table["value"].notna()].reset_index(drop=True)
    return tables


def _facts(store: MeasuredStore) -> dict[str, Any]:
    copied = ("data", "split", "data_note", "num_classes", "pooling", "sites", "memories", "weights", "dtype", "seed")
    return {
        "model": store.model,
        "name": str(store.attrs["model"]),
        "store": store.stem,
        "images": store.images,
        "images_of_all": store.total_images,
        "blocks": store.blocks,
        "conditions": [name for name in CONDITIONS if store.has(name)],
        **{key: store.attrs.get(key) for key in copied},
        "versions": store.attrs.get("versions"),
    }
