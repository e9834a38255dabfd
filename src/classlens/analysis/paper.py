"""The paper in one go: measure models on their data, and analyze the measurements."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classlens.analysis.analyze import AnalyzeResult, analyze
from classlens.analysis.published import PROBE_METHOD, REMOVAL, REMOVAL_METHODS, REMOVAL_MODELS
from classlens.core.stats import Statistics
from classlens.data.class_mapping import map_classes
from classlens.data.dataset import Dataset
from classlens.data.open_dataset import open_dataset
from classlens.engine.progress import MeasureResult, Progress
from classlens.errors import ClasslensError
from classlens.extras import require_extras_of
from classlens.lens.lens import Lens
from classlens.lens.load import load
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
    """The analysis of all models that could be measured, and why the others could not."""

    analysis: AnalyzeResult
    problems: dict[str, str]
    removal: dict[str, pd.DataFrame]
    """Scores of token removal, for models with published ones."""


def reproduce(
    data: Sequence[str],
    models: str | Sequence[str],
    stores: Path,
    *,
    checkpoints: Mapping[str, Path] | None = None,
    class_names: Mapping[str, Path | Sequence[str]] | None = None,
    per_class: int | None = PER_CLASS,
    split: str | None = None,
    masks: Sequence[str | os.PathLike[str] | None] = (),
    mask_values: str | None = None,
    memories: bool = True,
    removal: bool = False,
    ranks: Mapping[str, str | os.PathLike[str]] | None = None,
    statistics: Statistics | None = None,
    report: Callable[[str, Progress], None] = lambda *_: None,
    report_analysis: Callable[[str, int, int], None] = lambda *_: None,
    **options: Any,
) -> Reproduction:
    """Measure models under every condition that their data allow, and analyze them together.

    ``reproduce(["imagenet-s:/data", "cifar100:/cifar"], ["paper:vit-b-32"], Path("stores"))``

    A model is measured on the first data set whose classes are among its own. Stores are named by their models; an
    existing one is continued. A model that cannot be measured (no weights, no fitting data) stands in ``problems``, and
    does not stop the others.

    Args:
        data: data sets as for ``classlens.measure``.
        models: names of models; ``"all"`` for those of the paper.
        stores: folder of the stores.
        checkpoints: weight files by model.
        class_names: class names, or files of them, by model.
        per_class, split, memories, options: as for ``classlens.measure``.
        masks: folder of masks of each data set, or None for its own; none at all when left out.
        mask_values: what the values of these masks mean.
        removal: also token removal by importance, for models with published values: some hundred forward passes an
            image.
        ranks: by model, a store of ``classlens.probe`` of the same images, for token removal by probe importance.
        statistics: of intervals and tests.
        report: called with the model and the progress of its measurement.
        report_analysis: called with the model, the images analyzed and the images of its store.

    Raises:
        ClasslensError: no model could be measured, or a data set or its masks cannot be opened.
    """
    names = list(MODELS if models == "all" else dict.fromkeys([models] if isinstance(models, str) else models))
    checkpoints, class_names, ranks = dict(checkpoints or {}), dict(class_names or {}), dict(ranks or {})
    given: dict[str, Mapping[str, Any]] = {"a checkpoint was": checkpoints, "class names were": class_names}
    for kind, by_model in (given | {"ranks were": ranks}).items():
        for name in by_model:
            if name not in names:
                raise ClasslensError(f"{kind} given for model {name!r}, which is not among the models: add it")
    if not names or not data:
        raise ClasslensError(f"no {'data' if names else 'models'} were given: give one or more")
    if ranks and not removal:
        raise ClasslensError("ranks were given without token removal, which they are for: add --removal")
    require_extras_of("paper")
    if masks and len(masks) != len(data):
        raise ClasslensError(
            f"{len(masks)} folders of masks were given for {len(data)} data sets: give one for each, or 'none'"
        )
    if mask_values is not None and not any(masks):
        raise ClasslensError(f"mask values {mask_values!r} were given without masks: give their folder too")
    datasets = [
        open_dataset(spec, split=split, per_class=per_class, masks=folder, mask_values=mask_values if folder else None)
        for spec, folder in zip(data, masks or [None] * len(data), strict=True)
    ]
    measured: list[str] = []
    problems: dict[str, str] = {}
    scores: dict[str, pd.DataFrame] = {}
    for name in names:
        own: dict[str, Mapping[str, Any]] = {"checkpoint": checkpoints, "class_names": class_names}
        model_options = options | {option: by_model[name] for option, by_model in own.items() if name in by_model}
        try:
            result = _measure(name, datasets, stores, memories, partial(report, name), model_options)
            measured.append(result.store)
            if removal and name in REMOVAL_MODELS:
                scores[name] = _remove_tokens(
                    name, datasets, stores, ranks.get(name), statistics, partial(report, name), model_options
                )
        except ClasslensError as error:
            problems[name] = str(error)
    if not measured:
        first = next(iter(problems))
        raise ClasslensError(f"none of {len(names)} models could be measured; the first, {first!r}: {problems[first]}")
    return Reproduction(analyze(measured, statistics=statistics, report=report_analysis), problems, scores)


def _remove_tokens(
    name: str,
    datasets: Sequence[Dataset],
    stores: Path,
    ranks: str | os.PathLike[str] | None,
    statistics: Statistics | None,
    report: Callable[[Progress], None],
    options: Mapping[str, Any],
) -> pd.DataFrame:
    """Scores of token removal as published: every number of tokens, by the methods of the paper."""
    _, loading = _split(options)
    return evaluate(
        name,
        _first_fitting(load(name, **loading), datasets),
        stores / f"{slug(name)}-removal",
        methods=[method for method in REMOVAL_METHODS.values() if method != PROBE_METHOD or ranks is not None],
        metrics=[REMOVAL],
        steps="all",
        ranks=ranks,
        statistics=statistics,
        report=report,
        **options,
    ).scores


def _measure(
    name: str,
    datasets: Sequence[Dataset],
    stores: Path,
    memories: bool,
    report: Callable[[Progress], None],
    options: Mapping[str, Any],
) -> MeasureResult:
    measuring, loading = _split(options)
    lens = load(name, **loading)
    dataset = _first_fitting(lens, datasets)
    return measure(
        name,
        dataset,
        stores / f"{slug(name)}.zarr",
        conditions=_possible_conditions(lens, dataset),
        memories=memories,
        report=report,
        **measuring,
        **loading,
    )


def _split(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of measuring, and those of loading the model."""
    measuring = {key: options[key] for key in ("batch_size", "workers", "skip_bad", "seed") if key in options}
    return measuring, {key: value for key, value in options.items() if key not in measuring}


def _first_fitting(lens: Lens, datasets: Sequence[Dataset]) -> Dataset:
    """The first data set whose classes are among the model's."""
    problem: ClasslensError | None = None
    for dataset in datasets:
        try:
            map_classes(dataset, lens.classes, model_name=lens.view.name)
        except ClasslensError as error:
            problem = problem or error
        else:
            return dataset
    assert problem is not None
    raise problem


def _possible_conditions(lens: Lens, dataset: Dataset) -> list[str]:
    possible: list[str] = []
    for name in (name for name, condition in CONDITIONS.items() if condition.in_paper):
        try:
            possible += check_conditions([name], lens.view, masks=dataset.has_masks, data=dataset.spec)
        except ClasslensError:
            continue
    return possible


def slug(name: str) -> str:
    """A model's name as a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"
