"""A session: model, data and settings of one run, and the jobs that it starts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from classlens.core.arguments import AtLeast0, Seed, checked
from classlens.core.arrays import Array
from classlens.data.class_mapping import map_classes
from classlens.data.dataset import Dataset
from classlens.data.loading import batch_ranges
from classlens.data.open_dataset import open_dataset, sample_images
from classlens.engine import local, ray
from classlens.engine.batch_size import BatchSize, Passes, choose_batch_size, one_pass
from classlens.engine.model_source import Model, ModelSource
from classlens.engine.progress import MeasureResult, Report, Tracker, no_report
from classlens.engine.ray import Cluster
from classlens.engine.runner import SAVE_SECONDS, BatchResult
from classlens.engine.task import Job, Partition, Step, Task, Totals
from classlens.errors import ClasslensError
from classlens.forward.active_edits import active_edits
from classlens.lens.coords import image_names
from classlens.lens.lens import Lens
from classlens.models.view import Tokens
from classlens.store.backend import is_local
from classlens.store.identity import Identity
from classlens.store.lock import only_writer
from classlens.store.metadata import SHARD
from classlens.store.provenance import description, provenance, require_same, text_digest, transform_pixels
from classlens.store.store import Store, create_store, find_store, partition_ranges

Engine = Literal["local", "ray"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
Outputs = Literal["classes", "labels", "any"]
"""Classes that exclude each other; these or labels with a sigmoid each; or any numbers."""


@checked
@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of a run over a data set; every task takes these.

    Args:
        seed: random seed.
        batch_size: images per forward pass: ``"auto"``, up to 64, or a multiple of 64.
        workers: processes that decode images (``engine="local"``); chosen by the number of cores when None.
        skip_bad: record and skip unreadable images in place of stopping, and masks that do not fit.
        engine: ``"local"`` or ``"ray"``.
        cluster: where Ray runs.
        report: called with a ``Progress`` as images are finished.
    """

    seed: Seed = 0
    batch_size: BatchSize = "auto"
    workers: AtLeast0 | None = None
    skip_bad: bool = False
    engine: Engine = "local"
    cluster: Cluster = field(default_factory=Cluster)
    report: Report = no_report


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which images of a data set a run takes; see ``open_dataset``."""

    split: str | None = None
    label_column: str | None = None
    masks: str | os.PathLike[str] | None = None
    mask_values: str | None = None
    per_class: int | None = None
    limit: int | None = None
    shuffle: bool = False

    def open(self, data: str | Dataset, seed: int) -> Dataset:
        """The images; raises ClasslensError for a ``Dataset``, which is open already, with a split, column or masks."""
        opening = ("split", "label_column", "masks", "mask_values")
        sample: dict[str, Any] = {
            "per_class": self.per_class,
            "limit": self.limit,
            "seed": seed if self.shuffle else None,
        }
        if not isinstance(data, Dataset):
            return open_dataset(str(data), **{name: getattr(self, name) for name in opening}, **sample)
        for name in opening:
            if (given := getattr(self, name)) is not None:
                raise ClasslensError(f"{name} {str(given)!r} goes with the name of data: give it to open_dataset")
        return sample_images(data, **sample)


class Session:
    """One run: its model, its images with their labels, and its settings."""

    def __init__(
        self,
        source: ModelSource,
        dataset: Dataset,
        options: RunOptions,
        begun: Mapping[str, Any] | None = None,
        *,
        labeled: bool = True,
        outputs: Outputs = "classes",
        passes: Passes = one_pass,
    ) -> None:
        """``begun``: settings of the resumed run, whose batch size ``"auto"`` keeps; ``labeled``: labels matter.

        ``outputs``: those that the run is defined for. ``passes``: forward passes per image between
        two points where the run can be saved.
        """
        if options.engine != "local" and not source.by_name:
            raise ClasslensError(
                "a loaded model was given to run on a cluster: give the model's name, which each worker loads"
            )
        if options.engine == "ray":
            ray.require_ray()
        self.source, self.dataset, self.options, self._labeled = source, dataset, options, labeled
        if active_edits(self.lens.view.module).edits:
            raise ClasslensError(
                f"model {self.lens.view.name!r} runs with edits, which a run over a data set does not record: start it "
                "outside of lens.edit"
            )
        if outputs == "classes" or (outputs == "labels" and not self.lens.view.multi_label):
            self.lens.view.require_exclusive(
                "this run over a data set",
                "use lens.trace, inspect or explain for its images, or evaluate or means for a data set",
            )
        self.labels: Array = (
            map_classes(dataset, self.lens.classes, model_name=self.lens.view.name)
            if labeled
            else np.full(len(dataset), -1, dtype=np.int64)
        )
        self._image_names = [str(name) for name in image_names(dataset.names)]
        self._notes: list[str] = []
        self.pixels: Tensor = transform_pixels(self.lens.preprocessing, self.lens.view)
        self.shape = tuple(self.pixels.shape)
        self.tokens: Tokens = self.lens.view.tokens((self.shape[1], self.shape[2]))
        self.batch_size = choose_batch_size(options.batch_size, begun, self.lens.view, self.tokens, passes)

    @classmethod
    def start(
        cls,
        model: Model,
        data: str | Dataset,
        selection: Selection,
        options: RunOptions,
        load_options: Mapping[str, Any],
        begun: Mapping[str, Any] | None = None,
        *,
        outputs: Outputs = "classes",
        passes: Passes = one_pass,
    ) -> Session:
        """Open the data and load the model."""
        dataset = selection.open(data, options.seed)
        return cls(ModelSource(model, load_options), dataset, options, begun, outputs=outputs, passes=passes)

    @property
    def lens(self) -> Lens:
        """The model."""
        return self.source.lens

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Keep the connection to the cluster, if the engine has one, for several jobs."""
        with ray.connected(self.options.cluster) if self.options.engine == "ray" else nullcontext():
            yield

    def require_labels(self, purpose: str) -> None:
        """Raises ClasslensError for data without labels."""
        if not (self.labels >= 0).any():
            raise ClasslensError(f"data {self.dataset.spec!r} has no labels, which {purpose}: give labeled images")

    def require_masks(self) -> None:
        """Raises ClasslensError before the run for images without a mask of one's own, unless such are skipped."""
        missing = self.dataset.missing_masks
        if missing and not self.options.skip_bad:
            raise ClasslensError(
                f"{len(missing):,} of {len(self.dataset):,} images have no mask, such as {missing[0]!r}: add "
                "theirs, or measure these without by --skip-bad (skip_bad=True)"
            )

    def settings(self, **task: Any) -> dict[str, Any]:
        """Settings that a resumed run must repeat; ``task`` holds those of the task.

        A store has the content of each image beside its values.
        """
        seed = self.options.seed
        same = provenance(self.lens, self.dataset, self.pixels, batch_size=self.batch_size, seed=seed)
        if self._labeled:
            same["labels"] = text_digest(map(str, self.labels.tolist()))
            same["class_names"] = text_digest(self.lens.classes.names)
        return {**same, **task}

    def training_settings(self, **task: Any) -> dict[str, Any]:
        """``settings`` of a run that learns from all images together, with their content."""
        return {**self.settings(**task), "content": self.dataset.content_digest}

    def job(
        self,
        task: Task,
        *,
        images: Array | None = None,
        batch_size: int | None = None,
        threads: int | None = None,
    ) -> Job:
        """The task over the images of the session, or over some of them in another order."""
        return Job(
            task=task,
            source=self.source,
            dataset=self.dataset if images is None else self.dataset.subset(images),
            labels=self.labels if images is None else self.labels[images],
            shape=self.shape,
            batch_size=batch_size or self.batch_size,
            threads=threads or torch.get_num_threads(),
            skip_bad=self.options.skip_bad,
        )

    @contextmanager
    def writable_store(
        self, url: str, command: str, settings: Mapping[str, Any]
    ) -> Iterator[tuple[Store, Callable[[], None]]]:
        """The locked store of a run, new or resumed, and a function that renews the lock.

        Raises ClasslensError for a store of another command or other settings, or with another writer.
        """
        settings = {"command": command, **settings}
        with only_writer(url, local=is_local(url)) as renew:
            store = find_store(url)
            if store is None:
                threads = {"threads": torch.get_num_threads()}
                store = create_store(url, {**settings, **description(self.lens, self.dataset), **threads})
            else:
                identity = Identity(self._image_names, self.labels, self.lens.classes.names)
                require_same(url, store.attributes, settings, partial(identity.example, store))
                store.clear_leftovers()
                self._notes = [note for note in (_repair(store), self._forget_changed(store)) if note]
            yield store, renew

    def _forget_changed(self, store: Store) -> str:
        """Make images pending whose files are others than those that were measured; returns a note on them."""
        before = {group: store.finished_values(group, "content") for group in store.groups()}
        rows = [row for row, name in enumerate(self._image_names) if any(name in group for group in before.values())]
        now = dict(zip([self._image_names[row] for row in rows], self.dataset.content(rows).tolist(), strict=True))
        changed: set[str] = set()
        for group, contents in before.items():
            other = {name for name, content in contents.items() if now.get(name) != content}
            names = (store.texts(group, "image") or []) if other else []
            store.reset(group, sorted({row // SHARD for row, name in enumerate(names) if name in other}))
            changed |= other
        return f"{len(changed)} images changed since they were measured" if changed else ""

    def fill(
        self,
        jobs: Sequence[Job],
        store: Store,
        renew: Callable[[], None],
        note: str = "",
        totals: Totals | None = None,
    ) -> MeasureResult:
        """Measure the pending images of each job into the store, with one progress over all jobs.

        ``totals`` takes what belongs to no single image, and is saved from time to time and at the end.
        """
        pending = [_pending_partitions(job, store) for job in jobs]
        images = sum(len(job.dataset) for job in jobs)
        before = images - sum(partition.images for partitions in pending for partition in partitions)
        tracker = Tracker(self.options.report, images, before)
        skipped: dict[str, str] = {}
        for job, partitions in zip(jobs, pending, strict=True):
            steps = (
                ray.fill(job, partitions, store, self.options.cluster)
                if self.options.engine == "ray"
                else local.fill(job, partitions, store, self.options.workers)
            )
            with _saving(totals) as collect, closing(steps):  # a stop writes what is finished, and ends the workers
                for step in steps:
                    renew()
                    collect(step)
                    tracker.advance(step.images, step.skipped, under_way=step.under_way)
            for group in job.task.groups:
                skipped |= {job.dataset.names[index]: why for index, why in sorted(store.problems(group).items())}
        anew = f"{' and '.join(self._notes)}: their shards are measured anew" if self._notes else ""
        return MeasureResult(
            store.url,
            images,
            before,
            skipped,
            tracker.seconds,
            jobs[0].batch_size,
            "; ".join(filter(None, (note, anew))),
            self.dataset.class_counts,
            int((self.dataset.labels < 0).sum()),
        )

    def stream(self, job: Job, first: int = 0) -> Iterator[BatchResult]:
        """The results of a job in order of its images, from image ``first`` on, which begins a batch.

        Raises ClasslensError for an unreadable image, unless such are skipped.
        """
        batches = batch_ranges(range(first, len(job.dataset)), job.batch_size)
        partitions = [Partition(((images, job.task.groups),)) for images in batches]
        if self.options.engine == "ray":
            results = ray.stream(job, partitions, self.options.cluster)
        else:
            results = local.stream(job, partitions, self.options.workers)
        with closing(results):
            for result in results:
                if result.problems and not job.skip_bad:
                    reason = result.problems[min(result.problems)]
                    raise ClasslensError(f"{reason}; --skip-bad (skip_bad=True) leaves it out")
                yield result


@contextmanager
def _saving(totals: Totals | None) -> Iterator[Callable[[Step], None]]:
    """A function that hands over the totals of a step; they are saved from time to time and at the end."""
    saved = time.monotonic()

    def collect(step: Step) -> None:
        nonlocal saved
        if totals is None or not step.totals:
            return
        for part in step.totals:
            totals.add(part)
        if time.monotonic() - saved >= SAVE_SECONDS:
            totals.save()
            saved = time.monotonic()

    try:
        yield collect
    finally:
        if totals is not None:
            totals.save()


def _repair(store: Store) -> str:
    """Make images pending whose values are damaged; returns a note on them."""
    count = store.repair()
    return f"{count} damaged files were found" if count else ""


def _pending_partitions(job: Job, store: Store) -> list[Partition]:
    """The pending batches of whole shards, and the groups in which they are pending."""
    finished = {name: store.status(name) != 0 for name in job.task.groups}
    partitions = []
    for images in partition_ranges(len(job.dataset), max(SHARD, job.batch_size)):
        groups = {
            batch: tuple(name for name, flags in finished.items() if not flags[batch.start : batch.stop].all())
            for batch in batch_ranges(images, job.batch_size)
        }
        batches = tuple((batch, names) for batch, names in groups.items() if names)
        partitions += [Partition(batches)] if batches else []
    return partitions
