"""Evaluation of how faithful explanations are, over a data set."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from classlens.core.arguments import AnyPath, AtLeast0, AtLeast1, Seed, Takes
from classlens.core.arrays import Array
from classlens.core.path_arguments import checked_with_home
from classlens.core.stats import Statistics
from classlens.data.dataset import Dataset
from classlens.engine.batch_size import BatchSize
from classlens.engine.model_source import Model
from classlens.engine.progress import MeasureResult, Report, no_report
from classlens.engine.ray import Cluster
from classlens.engine.session import Engine, RunOptions, Selection, Session
from classlens.errors import ClasslensError
from classlens.explain.method import MethodLike
from classlens.extras import require_extras_of
from classlens.forward.isolation import isolated
from classlens.lens.coords import image_names
from classlens.lens.lens import Lens
from classlens.renderers import Shown
from classlens.store.open_store import group_names
from classlens.store.store import Store, find_in_folder
from classlens.tasks.evaluation.image_batch import EvaluationSettings
from classlens.tasks.evaluation.importance import StoredImportance, parse_methods
from classlens.tasks.evaluation.map_files import MapArray
from classlens.tasks.evaluation.map_importance import MapImportance, given_maps
from classlens.tasks.evaluation.mosaics import QUARTERS
from classlens.tasks.evaluation.plan import chosen_metrics, most_passes, plan_tasks, select_importances, select_metrics
from classlens.tasks.evaluation.stored_ranks import stored_methods
from classlens.tasks.evaluation.tables import tables
from classlens.tasks.evaluation.task import EvaluationTask

if TYPE_CHECKING:
    import pandas as pd

STORE = "evaluation.zarr"
Steps = Annotated[
    int | Literal["all"],
    Takes("a whole number of at least 2, or 'all'", lambda steps: steps == "all" or steps >= 2),
]


@dataclass(frozen=True, eq=False)
class EvaluateResult(Shown):
    """Tables of an evaluation. A notebook shows the scores.

    Args:
        scores: one row per method, metric and measure, with columns ``model, method, metric, measure, value, low, high,
            images, better, difference, difference_low, difference_high``. ``low`` and ``high`` bound the interval over
            images; ``better`` is ``higher``, ``lower`` or empty. ``difference`` is the value minus that of the best
            method, its interval resampled over the same images; NaN where no direction is better or images differ.
        curves: one row per point, with columns ``model, method, metric, curve, x, value, low, high``; ``x`` is from 0
            to 1.
        missing: reasons by metric or method that was left out.
        run: summary of the run that wrote the store.
        statistics: settings of the intervals.
    """

    _renderer: ClassVar[str] = "evaluation"

    scores: pd.DataFrame
    curves: pd.DataFrame
    missing: dict[str, str]
    run: MeasureResult
    statistics: Statistics


@isolated
@checked_with_home
def evaluate(
    model: Model,
    data: str | Dataset,
    out: AnyPath,
    *,
    methods: MethodLike | Collection[MethodLike] = "all",
    metrics: str | Collection[str] = "all",
    steps: Steps = 25,
    permutations: AtLeast1 = 10,
    ranks: AnyPath | None = None,
    maps: Mapping[str, AnyPath | Tensor | NDArray[Any]] | None = None,
    split: str | None = None,
    label_column: str | None = None,
    masks: AnyPath | None = None,
    mask_values: str | None = None,
    per_class: AtLeast1 | None = None,
    limit: AtLeast1 | None = None,
    shuffle: bool = False,
    seed: Seed = 0,
    batch_size: BatchSize = "auto",
    workers: AtLeast0 | None = None,
    skip_bad: bool = False,
    engine: Engine = "local",
    cluster: Cluster | None = None,
    statistics: Statistics | None = None,
    report: Report = no_report,
    **options: Any,
) -> EvaluateResult:
    """Evaluate how faithful explanations are, for the class of each image, or the predicted one without a label.

    Results of every image are stored in ``out/evaluation.zarr``, at least every 15 seconds after a metric of a method
    and a batch; a stopped run resumes when it is started again, and methods and metrics can be added later.

    Args:
        model: as for ``classlens.load``, or a lens (``engine="local"`` only).
        data: layout and place of the data, such as ``folder:ROOT`` (see ``open_dataset``), or a ``Dataset``. Without
            labels, the explained class is the one that the model predicts; mosaics need labels.
        out: output folder: new, empty, or of an earlier evaluation.
        methods: explanation methods, with options as ``class_gradient:loss=logit``; ``"all"`` takes every method that
            the model allows. Maps of other tools: functions, also ``"file.py:function:sign=absolute"``, that take
            model, pixels and target (see ``Trace.explain``). Results name them by the function alone.
        metrics: names of metrics; ``"all"`` takes every metric that model and data allow, and leaves out those that
            repeat another with black or blurred pixels.
        steps: numbers of tokens kept in token removal, at least 2, evenly spread from all tokens to one; ``"all"`` for
            every number, as published.
        permutations: number of random orders in token removal, at least 1.
        ranks: a store of ``classlens.probe`` or ``classlens.measure`` with the same images, for the method
            ``stored_rank:condition=probe``, which evaluates ranks as importance. With ``methods="all"``, the ranks of
            every probe and tuned lens are evaluated.
        maps: maps that another tool stored, by a name of yours, which may end in ``:sign=absolute``: a folder of
            ``.npy`` files with the relative paths of the images, or an array ``[image, row, column]`` in their order.
            A map covers the model's input, at any resolution. With ``methods=[]`` they are measured alone.
        split: split of the data, such as ``"validation"``.
        label_column: column of a table that has the classes, or ``"none"`` (see ``open_dataset``).
        masks: folder of masks that show where the class is, with the paths of the images (see ``open_dataset``).
        mask_values: what the values of ``masks`` mean, such as ``"object=1,3 ignore=255"`` (see ``open_dataset``).
        per_class: maximum number of images per class.
        limit: maximum number of images, spread evenly over the classes.
        shuffle: draw ``per_class`` and ``limit`` with ``seed``; the first images are taken otherwise.
        seed: random seed of orders, mosaics, other classes, the random twin and drawn samples.
        batch_size: images per forward pass: up to 64, or a multiple of 64. It is recorded and kept on resuming.
        workers: processes that decode images (``engine="local"``).
        skip_bad: record and skip unreadable images in place of stopping; images without a mask that fits are left out
            of what needs masks.
        engine: ``"local"``, or ``"ray"`` to spread the work over a cluster.
        cluster: where Ray runs.
        statistics: resamples, confidence and seed of the intervals; 2,000 resamples at 0.95 by default.
        report: called with a ``Progress`` as images are finished.
        options: passed to ``classlens.load``.

    Returns:
        An ``EvaluateResult``, with the tables of everything that the store holds.

    Raises:
        ClasslensError: methods or metrics that cannot be measured, and everything that ``classlens.measure`` raises.

    Examples:
        >>> import classlens
        >>> result = classlens.evaluate(
        ...     "builtin:cifar10", "cifar10:/data", "out", methods=["chefer", "random"]
        ... )  # doctest: +SKIP
        >>> result.scores[result.scores.measure == "negative_auc_reference"]  # doctest: +SKIP
    """
    require_extras_of("evaluate")
    run = RunOptions(
        seed=seed,
        batch_size=batch_size,
        workers=workers,
        skip_bad=skip_bad,
        engine=engine,
        cluster=cluster or Cluster(),
        report=report,
    )
    settings = EvaluationSettings(steps, permutations, seed)
    statistics = statistics or Statistics()
    alone = maps and not isinstance(methods, str) and not callable(methods) and not len(methods)
    importances = () if alone else parse_methods(methods)
    by_name = all(isinstance(each, StoredImportance) or isinstance(each.name, str) for each in importances)
    if engine != "local" and not by_name:
        raise ClasslensError(
            "a function in Python was given to run on a cluster: give it as file.py:function, which each worker reads"
        )
    stored = [MapImportance(text, MapArray(text, np.empty(0)), "", {}) for text in maps or {}]
    if methods == "all" and ranks is not None:
        importances += parse_methods(stored_methods(ranks))
    url, begun = find_in_folder(Path(out), STORE)
    selection = Selection(
        split=split,
        label_column=label_column,
        masks=masks,
        mask_values=mask_values,
        per_class=per_class,
        limit=limit,
        shuffle=shuffle,
    )
    passes = partial(most_passes, chosen_metrics(metrics), [*importances, *stored], settings)
    attributes = None if begun is None else begun.attributes
    session = Session.start(model, data, selection, run, options, attributes, outputs="labels", passes=passes)
    chosen, missing = select_metrics(metrics, session)
    allowed, refused = select_importances(importances, session, ranks, all_methods=methods == "all")
    missing |= refused
    allowed += given_maps(maps or {}, session.dataset.names, session.lens.view.channels, skip_bad=skip_bad)
    texts = [importance.text for importance in allowed]
    for text in maps or {}:
        if texts.count(text) > 1:
            raise ClasslensError(f"maps {text!r} have the name of a method of this run: give them another name")
    tasks = plan_tasks(chosen, allowed, settings, session, missing, all_metrics=metrics == "all")
    if any(task.mask_grid for task, _ in tasks):
        session.require_masks()
    extra = {"steps": settings.steps, "permutations": settings.permutations}
    with session.writable_store(url, "evaluate", session.settings(**extra)) as (store, renew):
        for task, _ in tasks:
            _check_mosaics(store, task)
        jobs = []
        for task, images in tasks:
            size = max(QUARTERS, session.batch_size // QUARTERS * QUARTERS) if task.mosaics else session.batch_size
            job = session.job(task, images=images, batch_size=size, threads=store.attributes["threads"])
            _add_groups(store, task, task.lens(session.source), image_names(job.dataset.names))
            jobs.append(job)
        quarters = sum(len(images) for task, images in tasks if task.mosaics)
        total = sum(len(images) for _, images in tasks)
        notes = [f"{quarters} of all {total} as quarters of mosaics"] if quarters else []
        notes += [
            f"{len(importance.without)} without a map of {importance.text}"
            for importance in allowed
            if isinstance(importance, MapImportance) and importance.without
        ]
        result = session.fill(jobs, store, renew, "; ".join(notes))
    return EvaluateResult(*tables(url, statistics), missing, result, statistics)


def _check_mosaics(store: Store, task: EvaluationTask) -> None:
    """Raises ClasslensError for a store with mosaics of another resolution, which do not belong in one table."""
    for group in group_names(store.url) if task.mosaics else ():
        before = store.group_attributes(group)
        if before.get("mosaics") and before.get("doubled") != task.doubled:
            raise ClasslensError(
                f"store {store.url!r} was begun with mosaics of {'twice' if before.get('doubled') else 'once'} the "
                f"model's size, not {'twice' if task.doubled else 'once'}: give the model in the same way, by name "
                "or as a lens, or another --out"
            )


def _add_groups(store: Store, task: EvaluationTask, lens: Lens, names: Array) -> None:
    """Create the groups of a task; raises ClasslensError for a group of other ranks or maps."""
    for group, (_, importance) in task.pairs.items():
        schema = task.schema(group, lens, names)
        key = "ranks" if isinstance(importance, StoredImportance) else "maps"
        if importance.digest is not None:
            schema = replace(schema, attrs={**schema.attrs, key: importance.digest})
        if isinstance(importance, MapImportance) and importance.without:
            schema = replace(schema, attrs={**schema.attrs, "without_map": list(importance.without)})
        store.add_group(group, schema)
        if store.group_attributes(group).get(key) != importance.digest:
            same = "the same --ranks" if key == "ranks" else "the same function or files"
            raise ClasslensError(
                f"store {store.url!r} holds {group!r} of other {key}: give {same} to resume, or another --out"
            )
