"""The paper in one go: measure models on their data, and analyze what was measured."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classlens.analysis.analyze import Analysis, analyze, require_libraries
from classlens.analysis.published import REMOVAL_METHODS, REMOVAL_MODELS
from classlens.core.stats import Statistics, check_statistics
from classlens.data.class_mapping import map_classes
from classlens.data.dataset import Dataset
from classlens.data.open_dataset import open_dataset
from classlens.engine.progress import MeasureResult, Progress
from classlens.errors import ClasslensError
from classlens.lens.lens import Lens, load
from classlens.models.paper import MODELS
from classlens.tasks.evaluation.evaluate import evaluate
from classlens.tasks.tokens.conditions.check import check_conditions
from classlens.tasks.tokens.conditions.registry import CONDITIONS
from classlens.tasks.tokens.measure import measure

if TYPE_CHECKING:
    import pandas as pd

PER_CLASS = 5
"""Images of each class (paper, section 4)."""


@dataclass(frozen=True)
class Reproduction:
    """What came of it: the analysis of all that could be measured, and why other models were not."""

    analysis: Analysis
    problems: dict[str, str]
    removal: dict[str, pd.DataFrame]
    """Scores of token removal, of the models of which the paper has them."""


def reproduce(
    data: Sequence[str],
    models: Sequence[str] | None,
    stores: Path,
    *,
    checkpoints: Mapping[str, Path] | None = None,
    per_class: int | None = PER_CLASS,
    split: str | None = None,
    memories: bool = True,
    removal: bool = False,
    statistics: Statistics | None = None,
    report: Callable[[str, Progress], None] = lambda *_: None,
    reading: Callable[[str, int, int], None] = lambda *_: None,
    **options: Any,
) -> Reproduction:
    """Measure models under every condition that their data allow, and analyze them together.

        reproduce(["imagenet-s:/data", "cifar100:/cifar"], ["paper:vit-b-32"], Path("stores"))

    A model takes the first data set whose classes are among its own. Stores are named by their models and gone on with
    when they are there already. What cannot be measured (no weights, no fitting data) stands in ``problems``; all other
    models are measured all the same.

    Args:
        data: data sets as for ``classlens.measure``.
        models: names of models; the paper's seven for None.
        stores: folder of the stores.
        checkpoints: weight files by model.
        per_class, split, memories, options: as for ``classlens.measure``.
        removal: also token removal by importance, where the paper has it: some hundred forward passes an image.

    Raises:
        ClasslensError: no model could be measured, or a data set cannot be opened.
    """
    names = list(dict.fromkeys(MODELS if models is None else models))
    weights = dict(checkpoints or {})
    for name in weights:
        if name not in names:
            raise ClasslensError(f"a checkpoint was given for model {name!r}, which is not among the models: add it")
    if not names or not data:
        raise ClasslensError(f"no {'data' if names else 'models'} were given: give one or more")
    check_statistics(statistics or Statistics())
    require_libraries()
    sets = [open_dataset(spec, split=split, per_class=per_class) for spec in data]
    made: list[str] = []
    problems: dict[str, str] = {}
    removed: dict[str, pd.DataFrame] = {}
    for name in names:
        loading = {"checkpoint": weights[name]} if name in weights else {}
        try:
            made.append(_measured(name, sets, stores, memories, partial(report, name), loading | options).store)
            if removal and name in REMOVAL_MODELS:
                removed[name] = _removal(name, sets, stores, statistics, partial(report, name), loading | options)
        except ClasslensError as error:
            problems[name] = str(error)
    if not made:
        first = next(iter(problems))
        raise ClasslensError(f"none of {len(names)} models could be measured; the first, {first!r}: {problems[first]}")
    return Reproduction(analyze(made, statistics=statistics, report=reading), problems, removed)


def _removal(
    name: str,
    sets: Sequence[Dataset],
    stores: Path,
    statistics: Statistics | None,
    report: Callable[[Progress], None],
    options: Mapping[str, Any],
) -> pd.DataFrame:
    """Token removal as published: every number of tokens, by the methods of the paper."""
    _, loading = _split(options)
    return evaluate(
        name,
        _fitting(load(name, **loading), sets),
        stores / f"{slug(name)}-removal",
        methods=list(REMOVAL_METHODS.values()),
        metrics=["removal"],
        steps="all",
        statistics=statistics,
        report=report,
        **options,
    ).scores


def _measured(
    name: str,
    sets: Sequence[Dataset],
    stores: Path,
    memories: bool,
    report: Callable[[Progress], None],
    options: Mapping[str, Any],
) -> MeasureResult:
    measuring, loading = _split(options)
    lens = load(name, **loading)
    chosen = _fitting(lens, sets)
    return measure(
        name,
        chosen,
        stores / f"{slug(name)}.zarr",
        conditions=_possible(lens, chosen),
        memories=memories,
        report=report,
        **measuring,
        **loading,
    )


def _split(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of measuring, and those of loading the model."""
    measuring = {key: options[key] for key in ("batch_size", "workers", "skip_bad", "seed") if key in options}
    return measuring, {key: value for key, value in options.items() if key not in measuring}


def _fitting(lens: Lens, sets: Sequence[Dataset]) -> Dataset:
    """The first data set whose classes are among the model's."""
    problem: ClasslensError | None = None
    for one in sets:
        try:
            map_classes(one, lens.classes, model_name=lens.view.name)
        except ClasslensError as error:
            problem = problem or error
        else:
            return one
    assert problem is not None
    raise problem


def _possible(lens: Lens, data: Dataset) -> list[str]:
    found: list[str] = []
    for name in CONDITIONS:
        try:
            found += check_conditions([name], lens.view, masks=data.has_masks, data=data.spec)
        except ClasslensError:
            continue
    return found


def slug(name: str) -> str:
    """A model's name as a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"
