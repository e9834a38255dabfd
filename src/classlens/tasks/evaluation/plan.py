"""Plan of an evaluation: the metrics and importances that model and data allow, and the tasks that measure them."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from classlens.core.arrays import Array
from classlens.engine.session import Session
from classlens.errors import ClasslensError
from classlens.models.view import ModelView, Tokens
from classlens.tasks.evaluation.image_batch import EvaluationSettings, Importance
from classlens.tasks.evaluation.importance import MethodImportance, StoredImportance
from classlens.tasks.evaluation.metric import Metric, MetricAxes
from classlens.tasks.evaluation.mosaics import quadruples
from classlens.tasks.evaluation.registry import METRICS
from classlens.tasks.evaluation.stored_ranks import STORED_RANK, stored_importance
from classlens.tasks.evaluation.task import EvaluationTask, group_name, twin_of


def chosen_metrics(names: str | Collection[str]) -> tuple[str, ...]:
    """Chosen names in the order of the registry; ``"all"`` leaves out metrics that are measured by name only.

    Raises ClasslensError for an unknown name, and where no name is given.
    """
    chosen = METRICS.select(names)
    return tuple(name for name in chosen if names != "all" or not METRICS[name].by_name_only)


def most_passes(
    metrics: Collection[str],
    importances: Sequence[Importance],
    settings: EvaluationSettings,
    view: ModelView,
    tokens: Tokens,
) -> float:
    """Forward passes per image of the costliest metric of an importance."""
    axes = {drawn: MetricAxes(tokens.grid, len(view.blocks), drawn, settings) for drawn in (False, True)}
    passes = (
        METRICS[name].passes(axes[importance.drawn])
        for name in metrics
        for importance in importances
        if METRICS[name].applies_to(importance)
    )
    return max(passes, default=1)


def select_metrics(names: str | Collection[str], session: Session) -> tuple[tuple[str, ...], dict[str, str]]:
    """The chosen metrics that can be measured, and reasons for others, which ``"all"`` leaves out.

    Raises ClasslensError for an unknown name, and for a metric given by name that cannot be measured.
    """
    chosen = chosen_metrics(names)
    missing = {name: reason for name in chosen if (reason := _unmet_need(METRICS[name], session))}
    for name, reason in missing.items():
        if names != "all":
            raise _unavailable(name, reason)
    return tuple(name for name in chosen if name not in missing), missing


def _unavailable(metric: str, reason: str) -> ClasslensError:
    return ClasslensError(f"metric {metric!r} cannot be measured: {reason}; leave it out")


def _unmet_need(metric: Metric, session: Session) -> str | None:
    if metric.needs_masks and not session.dataset.has_masks:
        return "the data has no masks that show where the class is: give them (--masks)"
    if metric.needs_random_twin:
        try:
            twin_of(session.source, session.options.seed)
        except ClasslensError:
            return f"model {session.lens.view.name!r} has no random twin, as no library makes it anew by its name"
    return None


def select_importances(
    importances: Sequence[MethodImportance | StoredImportance],
    session: Session,
    ranks: str | os.PathLike[str] | None,
    *,
    all_methods: bool,
) -> tuple[list[Importance], dict[str, str]]:
    """The importances that the model allows, and reasons for others, which are left out of ``all_methods``.

    Methods are tried on a random image. Raises ClasslensError for a method given by name that the model does not allow,
    and as ``stored_importance`` does.
    """
    height, width = session.lens.view.input_size
    shape = (1, session.lens.view.channels, height, width)
    trace = session.lens.trace(torch.rand(shape, generator=torch.Generator().manual_seed(0)))
    allowed: list[Importance] = []
    missing = {}
    for importance in importances:
        if isinstance(importance, StoredImportance):
            allowed.append(_with_ranks(importance, ranks, session))
            continue
        if importance.drawn:  # metrics other than token removal use the one order of the run's seed
            importance = replace(importance, options={**importance.options, "seed": session.options.seed})
        try:
            importance.explain(trace, torch.zeros(1, dtype=torch.int64))
        except ClasslensError as error:
            if not all_methods:
                raise
            missing[importance.text] = str(error)
        else:
            allowed.append(importance)
    return allowed, missing


def _with_ranks(
    importance: StoredImportance, ranks: str | os.PathLike[str] | None, session: Session
) -> StoredImportance:
    if ranks is None:
        raise ClasslensError(f"method {STORED_RANK!r} needs a store of ranks: give ranks=STORE (--ranks)")
    options: Any = importance.options
    values = stored_importance(ranks, session.dataset, session.lens, session.labels, **options)
    return replace(importance, values=values)


def plan_tasks(
    metrics: Collection[str],
    importances: Sequence[Importance],
    settings: EvaluationSettings,
    session: Session,
    missing: dict[str, str],
    *,
    all_metrics: bool,
) -> list[tuple[EvaluationTask, Array]]:
    """The task on single images and the task on mosaics, each with its images in order.

    Metrics on mosaics are added to ``missing`` for images of fewer than four classes. Raises ClasslensError for such a
    metric given by name, and where no metric applies to any importance.
    """
    tasks = []
    for kind, images in (
        ("single", np.arange(len(session.dataset))),
        ("mosaic", quadruples(session.labels, settings.seed)),
    ):
        names = [name for name in metrics if METRICS[name].images == kind]
        if names and not len(images):
            reason = "the images have labels of fewer than four classes, which a mosaic needs"
            if not all_metrics:
                raise _unavailable(names[0], reason)
            missing.update(dict.fromkeys(names, reason))
            continue
        pairs = {
            group_name(name, importance.text): (METRICS[name], importance)
            for name in names
            for importance in importances
            if METRICS[name].applies_to(importance)
        }
        if pairs:
            mosaics = kind == "mosaic"
            doubled = mosaics and session.source.doubled() is not None
            tasks.append((EvaluationTask(pairs, settings, session.shape, mosaics, doubled), images))
    if not tasks:
        texts = ", ".join(importance.text for importance in importances)
        reasons = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
        raise ClasslensError(
            f"none of the metrics {', '.join(metrics)} can be measured for {texts}"
            f"{f' ({reasons})' if reasons else ''}: give other metrics or methods"
        )
    return tasks
