"""Measuring how faithful explanations are, over a data set, into a store; and its tables."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from classlens.core.stats import Statistics, check_statistics
from classlens.data.class_mapping import map_classes
from classlens.data.dataset import Dataset
from classlens.data.registry import open_dataset
from classlens.engine.batch_size import chosen_batch_size
from classlens.engine.work import (
    Engine,
    MeasureResult,
    Progress,
    Work,
    check_engine,
    elsewhere,
    follow,
    here,
    lacking,
    reading,
)
from classlens.errors import ClasslensError, require_extra
from classlens.explain.registry import METHODS
from classlens.lens.labels import image_names
from classlens.lens.lens import Lens, load
from classlens.models.view import ModelView
from classlens.store.lock import only_writer
from classlens.store.provenance import description, identity_of, transform_pixels
from classlens.store.schema import Array
from classlens.store.store import Store, create, existing, groups_of, open_store, require_same
from classlens.tasks.evaluation import stored_ranks as stored
from classlens.tasks.evaluation.image_batch import Settings
from classlens.tasks.evaluation.job import Job, group_of, larger, twin_of
from classlens.tasks.evaluation.method_spec import MethodSpec, parse_methods
from classlens.tasks.evaluation.metric import Metric
from classlens.tasks.evaluation.pointing import QUARTERS, quadruples
from classlens.tasks.evaluation.registry import METRICS, select_metrics

if TYPE_CHECKING:
    import pandas as pd

STORE = "evaluation.zarr"


@dataclass(frozen=True, eq=False)
class EvaluateResult:
    """What was measured, as tables; ``missing`` tells what was left out and why, by metric or method."""

    scores: pd.DataFrame
    """A row a method, metric and measure: ``value, low, high, images, better``."""
    curves: pd.DataFrame
    """A row a point: ``method, metric, curve, x, value, low, high``."""
    missing: dict[str, str]
    outcome: MeasureResult
    statistics: Statistics


def evaluate(
    model: str | Path | nn.Module | ModelView | Lens,
    data: str | Dataset,
    out: str | os.PathLike[str],
    *,
    methods: str | Collection[str] = "all",
    metrics: Collection[str] | None = None,
    steps: int | None = 25,
    permutations: int = 10,
    ranks: str | os.PathLike[str] | None = None,
    split: str | None = None,
    per_class: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    shuffle: bool = False,
    batch_size: int | Literal["auto"] = "auto",
    workers: int | None = None,
    skip_bad: bool = False,
    engine: Engine = "local",
    cluster: Any = None,
    statistics: Statistics | None = None,
    report: Callable[[Progress], None] = lambda _: None,
    **options: Any,
) -> EvaluateResult:
    """Measure how faithful explanations are on images whose class is known.

        found = classlens.evaluate("builtin:cifar10", "cifar10:/data", "out", methods=["chefer", "random"])
        found.scores[found.scores.measure == "negative_auc_reference"]

    Results of every image stand in the store ``out/evaluation.zarr``, 64 images at a time; a run that was stopped
    goes on where it was, and methods and metrics may be added later. The tables speak of all that the store holds.

    Args:
        model: as for ``classlens.load``, or a lens (``engine="local"`` alone).
        data: as for ``classlens.measure``; images need labels.
        out: a folder.
        methods: of ``trace.explain``, with options as ``class_gradient:loss=logit``; ``"all"`` takes every one that the
            model has.
        metrics: some of ``removal, masking, segmentation, pointing, class_sensitivity, randomization, completeness``;
            all that model and data allow when left out.
        steps: numbers of tokens kept in token removal, spread evenly; None for every number, as published.
        permutations: random orders in token removal.
        ranks: a store of ``classlens.probe`` or ``classlens.measure`` of the same images, whose ranks are importance as
            well: ``stored_rank:condition=probe`` among the methods; with ``"all"`` that of every probe and tuned lens.
        split, per_class, limit, shuffle, batch_size, workers, skip_bad, engine, report: as for ``classlens.measure``.
        seed: of random orders, mosaics, other classes, the random twin and of drawn subsets.
        statistics: resamples, confidence and seed of the intervals.
        options: passed to ``classlens.load``.

    Raises:
        ClasslensError: images without classes, methods or metrics that cannot be measured, and all that
            ``classlens.measure`` raises.
    """
    check_engine(engine)
    require_extra("analysis", "pandas", "scipy")
    settings = _settings(steps, permutations, seed)
    how = statistics or Statistics()
    check_statistics(how)
    # Masking, segmentation and pointing see one random order: that of the run's seed.
    wanted = parse_methods(methods)
    if methods == "all" and ranks is not None:
        wanted += parse_methods([f"{stored.NAME}:condition={name}" for name in stored.conditions_of(ranks)])
    wanted = tuple(replace(one, options={"seed": seed}) if one.name == "random" else one for one in wanted)
    folder = Path(out)
    url = str(folder / STORE)
    begun = existing(url)
    if begun is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ClasslensError(f"output {str(folder)!r} holds other things and no {STORE}: give an empty or new --out")
    dataset = data
    if not isinstance(dataset, Dataset):
        dataset = open_dataset(str(data), split=split, per_class=per_class, limit=limit, seed=seed if shuffle else None)
    lens = model if isinstance(model, Lens) else load(model, **options)
    if isinstance(model, Lens) and engine != "local":
        raise ClasslensError("a lens was given to measure on a cluster: give the model's name, which each worker loads")
    source = lens.view if isinstance(model, Lens) else model
    labels = map_classes(dataset, lens.classes, model_name=lens.view.name)
    if not (labels >= 0).any():
        raise ClasslensError(
            f"data {dataset.spec!r} has no labels, which faithfulness is measured by: give labeled images"
        )
    wanted = _with_ranks(wanted, ranks, dataset, lens, labels)
    twin = _twin(source, lens, options, seed) if metrics is None or "randomization" in metrics else None
    measured, missing = select_metrics(metrics, lens, masks=dataset.has_masks, twin=twin is not None)
    wanted = _usable(wanted, lens, missing, every=methods == "all")
    pixels = transform_pixels(lens.preprocessing)
    tokens = lens.view.tokens((int(pixels.shape[1]), int(pixels.shape[2])))
    size = chosen_batch_size(batch_size, None if begun is None else begun.identity, lens.view, tokens.count)
    identity = {
        **identity_of(lens, dataset, pixels, batch_size=size, seed=seed),
        "steps": settings.steps,
        "permutations": settings.permutations,
    }
    order = quadruples(labels, seed)
    groups = _groups(measured, wanted, missing, mosaics=len(order) > 0, every=metrics is None)
    large = larger(source, lens, options) if any(metric.mosaics for metric in measured) else None
    with only_writer(url, local=True) as renew:
        store = existing(url)
        if store is None:
            about = {"classlens": "evaluate", "threads": torch.get_num_threads()}
            store = create(url, {**identity, **description(lens, dataset), **about})
        require_same(url, store.identity, identity)
        if any(metric.mosaics for metric in measured):
            _check_mosaics(store, double=large is not None)
        store.clear_leftovers()
        jobs: list[Job] = []
        for mosaics, own in groups.items():
            job = Job(
                model=source,
                options=options,
                dataset=dataset.subset(order) if mosaics else dataset,
                labels=labels[order] if mosaics else labels,
                methods=wanted,
                settings=settings,
                shape=tuple(pixels.shape),
                mosaics=mosaics,
                double=large is not None,
                work=Work(url, own, _of_mosaics(size) if mosaics else size, store.identity["threads"], skip_bad),
            )
            _add_groups(store, job, large if mosaics and large else lens)
            jobs.append(job)
        outcome = _measure(jobs, store, lens, large, twin, engine, cluster, workers, renew, report)
    return EvaluateResult(*tables(url, how), missing, outcome, how)


def _groups(
    metrics: tuple[Metric, ...], methods: tuple[MethodSpec, ...], missing: dict[str, str], *, mosaics: bool, every: bool
) -> dict[bool, tuple[str, ...]]:
    """The groups that are measured on images (False) and on mosaics (True); raises ClasslensError where none is."""
    found: dict[bool, tuple[str, ...]] = {}
    for metric in metrics:
        if metric.mosaics and not mosaics:
            why = "the images are of fewer than four classes, of which mosaics are made"
            if not every:
                raise ClasslensError(f"metric {metric.name!r} cannot be measured: {why}; leave it out")
            missing[metric.name] = why
            continue
        names = tuple(group_of(metric, method) for method in methods if metric.takes(method))
        if names:
            found[metric.mosaics] = found.get(metric.mosaics, ()) + names
    if not found:
        why = "; ".join(f"{name}: {why}" for name, why in missing.items())
        raise ClasslensError(
            f"nothing of {', '.join(metric.name for metric in metrics)} can be measured of "
            f"{', '.join(method.text for method in methods)}{f' ({why})' if why else ''}: ask for other ones"
        )
    return dict(sorted(found.items()))


def _measure(
    jobs: list[Job],
    store: Store,
    lens: Lens,
    large: Lens | None,
    twin: Lens | None,
    engine: Engine,
    cluster: Any,
    workers: int | None,
    renew: Callable[[], None],
    report: Callable[[Progress], None],
) -> MeasureResult:
    """Do what is left of each job, one job after another, with one progress over all of them."""
    todo = [lacking(job.work, store) for job in jobs]
    images = sum(len(job.dataset) for job in jobs)
    before = images - sum(len(unit) for units in todo for unit in units)
    started = time.perf_counter()
    skipped: dict[str, str] = {}
    for number, (job, units) in enumerate(zip(jobs, todo, strict=True)):
        # What later jobs have behind them counts from the start, so that the bar never falls back.
        others = sum(len(each.dataset) for each in jobs) - len(job.dataset)
        told = partial(
            _tell, report, started, images, before, others - sum(len(u) for us in todo[number + 1 :] for u in us)
        )
        if engine == "ray":
            made = elsewhere(job, units, cluster)
        else:
            batches = reading(job.reader(lens), units, job.work.batch_size, workers)
            made = here(partial(job.worker_of, lens, large or lens, twin), units, batches)
        follow(made, len(job.dataset), sum(map(len, units)), renew, told)
        for group in job.work.groups:
            skipped |= {job.dataset.names[index]: why for index, why in store.problems(group).items()}
    again = sum(len(job.dataset) for job in jobs if job.mosaics)
    note = f"{again} of all {images} as quarters of mosaics" if again else ""
    return MeasureResult(
        store.url, images, before, skipped, time.perf_counter() - started, jobs[0].work.batch_size, note
    )


def _tell(
    report: Callable[[Progress], None], started: float, images: int, before: int, others: int, now: Progress
) -> None:
    """The progress of one job as that of all, of which ``others`` are done elsewhere."""
    seconds = time.perf_counter() - started
    report(replace(now, done=others + now.done, images=images, before=before, seconds=seconds))


def tables(store: str, how: Statistics) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores and curves of everything that a store holds, from the images that were measured and have a class."""
    import pandas as pd

    scores, curves = [], []
    for group in sorted(groups_of(store), key=_place):
        name, _, method = group.partition(".")
        data = open_store(store, group)
        if "measured" not in data:  # left behind by a run that was killed while it made the group
            continue
        data = data.isel(image=(data["measured"].values == 1) & (data["label"].values >= 0)).load()
        if not data.sizes["image"]:
            continue
        keys = {"model": data.attrs["model"], "method": method, "metric": name}
        scores += [keys | one._asdict() for one in METRICS[name].scores(data, how)]
        curves += [keys | one._asdict() for one in METRICS[name].points(data, how)]
    columns = ["model", "method", "metric"]
    return (
        pd.DataFrame(scores, columns=[*columns, "measure", "value", "low", "high", "images", "better"]),
        pd.DataFrame(curves, columns=[*columns, "curve", "x", "value", "low", "high"]),
    )


def _place(group: str) -> tuple[int, int, str]:
    """Metrics and methods in the order of their tables."""
    name, _, text = group.partition(".")
    method = text.partition(":")[0]
    return list(METRICS).index(name), [*METHODS, stored.NAME].index(method), text


def _settings(steps: int | None, permutations: int, seed: int) -> Settings:
    for name, value, least in (("steps", steps, 2), ("permutations", permutations, 1), ("seed", seed, 0)):
        if value is not None and value < least:
            raise ClasslensError(f"{name} is {value}: give at least {least}")
    return Settings(steps, permutations, seed)


def _twin(source: Any, lens: Lens, options: Any, seed: int) -> Lens | None:
    try:
        return twin_of(source, lens, options, seed)
    except ClasslensError:
        return None


def _usable(
    methods: tuple[MethodSpec, ...], lens: Lens, missing: dict[str, str], *, every: bool
) -> tuple[MethodSpec, ...]:
    """The methods that the model has, tried out on a random image; where all are asked for, others are left out."""
    height, width = lens.view.input_size
    pixels = torch.rand(1, lens.view.channels, height, width, generator=torch.Generator().manual_seed(0))
    trace = lens.trace(pixels)
    found = []
    for method in methods:
        if method.stored is not None:
            found.append(method)
            continue
        try:
            method.importance(trace, torch.zeros(1, dtype=torch.int64))
        except ClasslensError as error:
            if not every:
                raise
            missing[method.text] = str(error)
        else:
            found.append(method)
    return tuple(found)


def _with_ranks(
    methods: tuple[MethodSpec, ...],
    ranks: str | os.PathLike[str] | None,
    dataset: Dataset,
    lens: Lens,
    labels: Array,
) -> tuple[MethodSpec, ...]:
    """Methods with what they take from a store."""
    if ranks is None and any(one.name == stored.NAME for one in methods):
        raise ClasslensError(f"method {stored.NAME!r} needs a store of ranks: give ranks=STORE (--ranks)")
    return tuple(
        replace(one, stored=stored.stored_importance(ranks, dataset, lens, labels, **one.options))  # type: ignore[arg-type]
        if one.name == stored.NAME and ranks is not None
        else one
        for one in methods
    )


def _of_mosaics(batch_size: int) -> int:
    """Images in a batch of mosaics, about as many tokens as in one of images: four are one, of four times the size."""
    return max(QUARTERS, batch_size // QUARTERS * QUARTERS)


def _check_mosaics(store: Store, *, double: bool) -> None:
    """A model by its name sees mosaics at twice the size, and the same one as a lens at its own: not in one table."""
    for group in groups_of(store.url):
        before = open_store(store.url, group).attrs.get("double")
        if METRICS[group.partition(".")[0]].mosaics and before not in (None, double):
            raise ClasslensError(
                f"store {store.url!r} was begun with mosaics of {'twice' if before else 'once'} the model's size, not "
                f"{'twice' if double else 'once'}: give the model in the same way, by name or as a lens, or another "
                "--out"
            )


def _add_groups(store: Store, job: Job, seer: Lens) -> None:
    names = image_names(job.dataset.names)
    for group in job.work.groups:
        layout, coords = job.layout(group, seer)
        _, method = job.wanted(group)
        about = {"metric": group.partition(".")[0], "method": method.text, "double": job.double}
        if method.stored is not None:
            about["ranks"] = hashlib.sha256(method.stored.tobytes()).hexdigest()
        store.add_group(group, layout, {"image": ("image", names), **coords}, about)
        if open_store(store.url, group).attrs.get("ranks") != about.get("ranks"):
            raise ClasslensError(
                f"store {store.url!r} holds {group!r} of other ranks: give the same --ranks to go on, or another --out"
            )
