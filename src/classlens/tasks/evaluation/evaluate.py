"""Evaluating how faithful explanations are, over a data set."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from classlens.core.stats import Statistics, check_statistics
from classlens.data.dataset import Dataset
from classlens.engine.model_source import Model
from classlens.engine.progress import MeasureResult, Report, no_report
from classlens.engine.ray import Cluster
from classlens.engine.session import Engine, RunOptions, Selection, Session
from classlens.errors import ClasslensError, require_extra
from classlens.lens.labels import image_names
from classlens.lens.lens import Lens
from classlens.store.open_store import group_names, open_group
from classlens.store.store import Store, find_store
from classlens.tasks.evaluation.image_batch import EvaluationSettings, Importance
from classlens.tasks.evaluation.importance import MethodImportance, StoredImportance, parse_methods
from classlens.tasks.evaluation.mosaics import QUARTERS, quadruples
from classlens.tasks.evaluation.registry import METRICS
from classlens.tasks.evaluation.stored_ranks import STORED_RANK, stored_importance, stored_methods
from classlens.tasks.evaluation.tables import tables
from classlens.tasks.evaluation.task import EvaluationTask, group_name, split_group, twin_of

if TYPE_CHECKING:
    import pandas as pd

STORE = "evaluation.zarr"


@dataclass(frozen=True, eq=False)
class EvaluateResult:
    """Tables of an evaluation.

    Args:
        scores: one row per method, metric and measure: ``value, low, high, images, better``.
        curves: one row per point: ``method, metric, curve, x, value, low, high``.
        missing: reasons by metric or method that was left out.
        run: summary of the run that wrote the store.
        statistics: settings of the intervals.
    """

    scores: pd.DataFrame
    curves: pd.DataFrame
    missing: dict[str, str]
    run: MeasureResult
    statistics: Statistics


def evaluate(
    model: Model,
    data: str | Dataset,
    out: str | os.PathLike[str],
    *,
    methods: str | Collection[str] = "all",
    metrics: str | Collection[str] = "all",
    steps: int | Literal["all"] = 25,
    permutations: int = 10,
    ranks: str | os.PathLike[str] | None = None,
    split: str | None = None,
    per_class: int | None = None,
    limit: int | None = None,
    shuffle: bool = False,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    workers: int | None = None,
    skip_bad: bool = False,
    engine: Engine = "local",
    cluster: Cluster | None = None,
    statistics: Statistics | None = None,
    report: Report = no_report,
    **options: Any,
) -> EvaluateResult:
    """Evaluate how faithful explanations are on images with labels.

    Results of every image are stored in ``out/evaluation.zarr``, 64 images at a time; a stopped run resumes when it is
    started again, and methods and metrics can be added later. The tables cover everything that the store holds.

    Args:
        model: as for ``classlens.load``, or a lens (``engine="local"`` only).
        data: as for ``classlens.measure``.
        out: a folder.
        methods: explanation methods, with options as ``class_gradient:loss=logit``; ``"all"`` takes every method that
            the model allows.
        metrics: names of metrics; ``"all"`` takes every metric that model and data allow.
        steps: numbers of tokens kept in token removal, evenly spread (2 or more); ``"all"`` as published.
        permutations: random orders in token removal.
        ranks: a store of ``classlens.probe`` or ``classlens.measure`` with the same images, whose ranks are evaluated
            as importance: ``stored_rank:condition=probe`` among the methods. With ``methods="all"``, those of every
            probe and tuned lens.
        split: split of the data, such as ``"validation"``.
        per_class: maximum number of images per class.
        limit: maximum number of images.
        shuffle: draw ``per_class`` and ``limit`` with ``seed``; the first images are taken otherwise.
        seed: random seed of orders, mosaics, other classes, the random twin and drawn samples.
        batch_size: images per forward pass: up to 64, or a multiple of 64. It is recorded and kept on resuming.
        workers: processes that decode images (``engine="local"``).
        skip_bad: record and skip unreadable images in place of stopping.
        engine: ``"local"``, or ``"ray"`` to spread the work over a cluster.
        cluster: where Ray runs.
        statistics: resamples, confidence and seed of the intervals.
        report: called with a ``Progress`` as images are finished.
        options: passed to ``classlens.load``.

    Returns:
        An ``EvaluateResult``.

    Raises:
        ClasslensError: images without labels, methods or metrics that cannot be measured, and everything that
            ``classlens.measure`` raises.

    Examples:
        >>> import classlens
        >>> result = classlens.evaluate(
        ...     "builtin:cifar10", "cifar10:/data", "out", methods=["chefer", "random"]
        ... )  # doctest: +SKIP
        >>> result.scores[result.scores.measure == "negative_auc_reference"]  # doctest: +SKIP
    """
    require_extra("analysis", "pandas", "scipy")
    run = RunOptions(
        seed=seed,
        batch_size=batch_size,
        workers=workers,
        skip_bad=skip_bad,
        engine=engine,
        cluster=cluster or Cluster(),
        report=report,
    )
    settings = _settings(steps, permutations, seed)
    statistics = statistics or Statistics()
    check_statistics(statistics)
    importances = parse_methods(methods)
    if methods == "all" and ranks is not None:
        importances += parse_methods(stored_methods(ranks))
    folder = Path(out)
    url = str(folder / STORE)
    begun = find_store(url)
    if begun is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ClasslensError(f"output {str(folder)!r} holds other things and no {STORE}: give an empty or new --out")
    selection = Selection(split=split, per_class=per_class, limit=limit, shuffle=shuffle)
    session = Session.start(model, data, selection, run, options, None if begun is None else begun.attributes)
    session.require_labels("faithfulness is measured by")
    lens = session.lens
    names, missing = select_metrics(metrics, lens, masks=session.dataset.has_masks, twin=_has_twin(session, metrics))
    allowed = _allowed(importances, session, ranks, missing, every=methods == "all")
    tasks = _tasks(names, allowed, settings, session, missing, every=metrics == "all")
    extra = {"steps": settings.steps, "permutations": settings.permutations}
    with session.writable_store(url, "evaluate", session.settings(**extra)) as (store, renew):
        jobs = []
        for task, images in tasks:
            dataset = session.dataset.subset(images)
            _add_groups(store, task, task.lens(session.source), image_names(dataset.names))
            size = max(QUARTERS, session.batch_size // QUARTERS * QUARTERS) if task.mosaics else session.batch_size
            threads = store.attributes["threads"]
            jobs.append(session.job(task, images=images, batch_size=size, threads=threads))
        quarters = sum(len(job.dataset) for job, (task, _) in zip(jobs, tasks, strict=True) if task.mosaics)
        total = sum(len(job.dataset) for job in jobs)
        note = f"{quarters} of all {total} as quarters of mosaics" if quarters else ""
        result = session.fill(jobs, store, renew, note)
    return EvaluateResult(*tables(url, statistics), missing, result, statistics)


def _settings(steps: int | str, permutations: int, seed: int) -> EvaluationSettings:
    if steps != "all" and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 2):
        raise ClasslensError(f"steps is {steps}: give at least 2, or all")
    if permutations < 1:
        raise ClasslensError(f"permutations is {permutations}: give at least 1")
    return EvaluationSettings(None if steps == "all" else int(steps), permutations, seed)


def _has_twin(session: Session, metrics: str | Collection[str]) -> bool:
    """Whether the model has a random twin; made only where a metric may ask for it."""
    if metrics != "all" and "randomization" not in metrics:
        return False
    try:
        twin_of(session.source, session.options.seed)
    except ClasslensError:
        return False
    return True


def select_metrics(
    names: str | Collection[str], lens: Lens, *, masks: bool, twin: bool
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The chosen metrics, and why others are left out: ``"all"`` takes every metric that can be measured.

    Raises ClasslensError for an unknown name, and for a metric given by name that cannot be measured.
    """
    chosen = METRICS.select(names)
    unavailable = {
        name: reason for name in chosen if (reason := METRICS[name].unavailable(lens, masks=masks, twin=twin))
    }
    if unavailable and names != "all":
        name, reason = next(iter(unavailable.items()))
        raise ClasslensError(f"metric {name!r} cannot be measured: {reason}; leave it out")
    return tuple(name for name in chosen if name not in unavailable), unavailable


def _allowed(
    importances: tuple[MethodImportance | StoredImportance, ...],
    session: Session,
    ranks: str | os.PathLike[str] | None,
    missing: dict[str, str],
    *,
    every: bool,
) -> list[Importance]:
    """The importances that the model allows, tried out on a random image, and those of the store of ranks.

    A method that the model does not allow is left out where all are asked for, and raises ClasslensError otherwise.
    """
    height, width = session.lens.view.input_size
    shape = (1, session.lens.view.channels, height, width)
    trace = session.lens.trace(torch.rand(shape, generator=torch.Generator().manual_seed(0)))
    allowed: list[Importance] = []
    for importance in importances:
        if isinstance(importance, StoredImportance):
            allowed.append(_with_ranks(importance, ranks, session))
            continue
        if importance.drawn:  # metrics other than token removal use the one order of the run's seed
            importance = replace(importance, options={"seed": session.options.seed})
        try:
            importance.explain(trace, torch.zeros(1, dtype=torch.int64))
        except ClasslensError as error:
            if not every:
                raise
            missing[importance.text] = str(error)
        else:
            allowed.append(importance)
    return allowed


def _with_ranks(
    importance: StoredImportance, ranks: str | os.PathLike[str] | None, session: Session
) -> StoredImportance:
    if ranks is None:
        raise ClasslensError(f"method {STORED_RANK!r} needs a store of ranks: give ranks=STORE (--ranks)")
    options: Any = importance.options
    return replace(
        importance, values=stored_importance(ranks, session.dataset, session.lens, session.labels, **options)
    )


def _tasks(
    metrics: tuple[str, ...],
    importances: list[Importance],
    settings: EvaluationSettings,
    session: Session,
    missing: dict[str, str],
    *,
    every: bool,
) -> list[tuple[EvaluationTask, Any]]:
    """The task on single images and the task on mosaics, each with its images in order."""
    order = quadruples(session.labels, settings.seed)
    tasks = []
    for kind, images in (("single", np.arange(len(session.dataset))), ("mosaic", order)):
        chosen = [name for name in metrics if METRICS[name].images == kind]
        if not len(images) and chosen:
            reason = "the images are of fewer than four classes, of which mosaics are made"
            if not every:
                raise ClasslensError(f"metric {chosen[0]!r} cannot be measured: {reason}; leave it out")
            missing.update(dict.fromkeys(chosen, reason))
            continue
        pairs = dict(_pairs(chosen, importances))
        if pairs:
            mosaics = kind == "mosaic"
            doubled = mosaics and session.source.doubled() is not None
            tasks.append((EvaluationTask(pairs, settings, session.shape, mosaics, doubled), images))
    if not tasks:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
        raise ClasslensError(
            f"nothing of {', '.join(metrics)} can be measured of "
            f"{', '.join(importance.text for importance in importances)}{f' ({reasons})' if reasons else ''}: ask for "
            "other ones"
        )
    return tasks


def _pairs(metrics: list[str], importances: list[Importance]) -> Iterator[tuple[str, tuple[str, Importance]]]:
    for name in metrics:
        for importance in importances:
            if METRICS[name].applies_to(importance):
                yield group_name(name, importance.text), (name, importance)


def _add_groups(store: Store, task: EvaluationTask, lens: Lens, names: Any) -> None:
    """Make the groups of a task; raises ClasslensError where they hold results of other mosaics or ranks."""
    for group in group_names(store.url):
        before = open_group(store.url, group).attrs.get("doubled")
        if task.mosaics and METRICS[split_group(group)[0]].images == "mosaic" and before not in (None, task.doubled):
            raise ClasslensError(
                f"store {store.url!r} was begun with mosaics of {'twice' if before else 'once'} the model's size, not "
                f"{'twice' if task.doubled else 'once'}: give the model in the same way, by name or as a lens, or "
                "another --out"
            )
    for group in task.groups:
        schema = task.schema(group, lens, names)
        _, importance = task.pair(group)
        digest = None
        if isinstance(importance, StoredImportance) and importance.values is not None:
            digest = hashlib.sha256(importance.values.tobytes()).hexdigest()
            schema = replace(schema, attrs={**schema.attrs, "ranks": digest})
        store.add_group(group, schema)
        if store.group_attributes(group).get("ranks") != digest:
            raise ClasslensError(
                f"store {store.url!r} holds {group!r} of other ranks: give the same --ranks to resume, or another --out"
            )
