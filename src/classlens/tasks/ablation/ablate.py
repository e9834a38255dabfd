"""Ablation of every head over a data set, tests of the heads that matter, and what tips confusions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import xarray as xr

from classlens.core.arguments import AnyPath, AtLeast0, AtLeast1, Seed, Takes
from classlens.core.path_arguments import checked_with_home
from classlens.core.stats import Statistics
from classlens.data.dataset import Dataset
from classlens.engine.batch_size import BatchSize
from classlens.engine.model_source import Model
from classlens.engine.progress import MeasureResult, Report, no_report
from classlens.engine.ray import Cluster
from classlens.engine.session import Engine, RunOptions, Selection, Session
from classlens.errors import ClasslensError
from classlens.extras import require_extras_of
from classlens.forward.isolation import isolated
from classlens.forward.means import Means, require_means_of
from classlens.lens.coords import image_names
from classlens.lens.means_file import load_means
from classlens.models.view import ModelView, Tokens
from classlens.store.open_store import open_group
from classlens.store.schema import MEASURED
from classlens.store.store import Store, find_in_folder
from classlens.tasks.ablation.contrast import ContrastTask
from classlens.tasks.ablation.effects import EffectsTask
from classlens.tasks.ablation.plan import Plan, PlanSettings
from classlens.tasks.ablation.references import Reference
from classlens.tasks.ablation.result import AblateResult, result_of
from classlens.tasks.ablation.tables import table_names
from classlens.tasks.ablation.task import LabeledTask
from classlens.tasks.ablation.without import WithoutTask

STORE = "ablation.zarr"
MOST_CLASSES = 20

To = Annotated[Means | AnyPath | Literal["zero"], Takes("'zero', or means of a data set or their file")]


@isolated
@checked_with_home
def ablate(
    model: Model,
    data: str | Dataset,
    out: AnyPath,
    *,
    to: To,
    heads: AtLeast1 = 3,
    draws: AtLeast1 = 5,
    classes: str | Collection[str] = "all",
    pairs: AtLeast0 = 10,
    split: str | None = None,
    label_column: str | None = None,
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
) -> AblateResult:
    """Ablate every head over a data set, and test on one half of it the heads that the other half says matter.

    Every image runs without each head in turn, exactly. A random half of the images of each class chooses the heads
    with the largest mean of each score for the class; the other half runs without them, and without random heads. For
    confusions, the heads and MLPs that tip them are found on the first half and tested on the other one. Values of
    every image are stored in ``out/ablation.zarr``; a stopped run resumes when it is started again.

    Args:
        model: as for ``classlens.load``, or a lens (``engine="local"`` only).
        data: layout and place of labeled data, such as ``folder:ROOT`` (see ``open_dataset``), or a ``Dataset``.
        out: output folder: new, empty, or of an earlier run.
        to: what takes the place of outputs: means of a data set (``classlens.means``), their file, or ``"zero"``.
        heads: number of heads, or of parts that tip a confusion, that are ablated together in a test; at least 1.
        draws: number of random sets of heads, at least 1.
        classes: names of the classes whose heads are tested; ``"all"`` takes the 20 with most images, the first
            of equals.
        pairs: maximum number of confusions, 0 or more; each has at least 3 images in the choosing half.
        split: split of the data, such as ``"validation"``.
        label_column: column of a table that has the classes (see ``open_dataset``).
        per_class: maximum number of images per class.
        limit: maximum number of images, spread evenly over the classes.
        shuffle: draw ``per_class`` and ``limit`` with ``seed``; the first images are taken otherwise.
        seed: random seed of halves, random heads and drawn samples.
        batch_size: images per forward pass, and rows per batch of variants: up to 64, or a multiple of 64.
        workers: processes that decode images (``engine="local"``).
        skip_bad: record and skip unreadable images in place of stopping.
        engine: ``"local"``, or ``"ray"`` to spread the work over a cluster.
        cluster: where Ray runs.
        statistics: resamples, confidence and seed of the intervals; 2,000 resamples at 0.95 with ``seed`` by default.
        report: called with a ``Progress`` as images are finished.
        options: passed to ``classlens.load``.

    Returns:
        An ``AblateResult``.

    Raises:
        ClasslensError: data without labels or with too few images of a class, means of another model, an unknown class,
            a head that pools by attention, and everything that ``classlens.measure`` raises.

    Examples:
        >>> import classlens
        >>> result = classlens.ablate(
        ...     "builtin:photos", "folder:photos/test", "out", to="means.safetensors"
        ... )  # doctest: +SKIP
        >>> result.held_out[result.held_out["class"] == "all"]  # doctest: +SKIP
    """
    require_extras_of("ablate")
    run = RunOptions(
        seed=seed,
        batch_size=batch_size,
        workers=workers,
        skip_bad=skip_bad,
        engine=engine,
        cluster=cluster or Cluster(),
        report=report,
    )
    statistics = statistics or Statistics(seed)
    reference: Reference = "zero" if not isinstance(to, Means) and to == "zero" else _loaded(to)
    url, begun = find_in_folder(Path(out), STORE)
    selection = Selection(split=split, label_column=label_column, per_class=per_class, limit=limit, shuffle=shuffle)
    session = Session.start(
        model, data, selection, run, options, None if begun is None else begun.attributes, passes=_passes
    )
    view = session.lens.view
    session.require_labels("name the class whose log odds and accuracy are measured")
    if isinstance(reference, Means):
        require_means_of(view, reference)
    every = sum(block.heads for block in view.blocks)
    if heads >= every:
        raise ClasslensError(f"heads is {heads}, but model {view.name!r} has {every} heads: give a smaller number")
    session.lens.trace(session.pixels[None]).attribution(0)  # raises for a model that has none
    tested = _tested_classes(session, classes)
    settings, class_names = PlanSettings(heads, draws, pairs, seed), table_names(session.lens.classes.names)
    same = session.settings(to=_digest(reference))
    with session.connected(), session.writable_store(url, "ablate", same) as (store, renew):
        measure = _Measuring(session, store, renew)
        names = [str(name) for name in image_names(session.dataset.names)]
        effects = measure(EffectsTask(session.batch_size, reference), names)
        plan = Plan.of(effects, _measured_classes(session, effects, tested, classes), settings)
        images, labels = np.array(list(map(str, effects["image"].values)), dtype=object), effects["label"].values
        of_pairs = plan.choosing & np.isin(labels, list(plan.rivals))
        if of_pairs.any():
            predicted = dict(zip(images.tolist(), effects["predicted"].values.tolist(), strict=True))
            contrast = measure(ContrastTask(session.batch_size, plan.rivals, list(images[of_pairs])), images[of_pairs])
            plan.add_contrast(contrast, predicted, class_names, settings, statistics)
        testing = list(images[~plan.choosing])
        without = measure(WithoutTask(session.batch_size, reference, plan.variants, testing), testing)
    described = {
        "model": view.name,
        "data": session.dataset.spec,
        "to": "zero" if reference == "zero" else f"its mean over {reference.data}",
        **asdict(settings),
    }
    return result_of(effects, plan, without, class_names, described, measure.result, statistics)


class _Measuring:
    """Measures tasks into the store of a session."""

    def __init__(self, session: Session, store: Store, renew: Callable[[], None]) -> None:
        self._session, self._store, self._renew = session, store, renew
        self._position = {str(name): row for row, name in enumerate(image_names(session.dataset.names))}
        self._results: list[MeasureResult] = []

    @property
    def result(self) -> MeasureResult:
        """The result of the first task, which has all images, with the time and the skipped images of all tasks."""
        seconds = sum(result.seconds for result in self._results)
        skipped = {name: why for result in self._results for name, why in result.skipped.items()}
        return replace(self._results[0], seconds=seconds, skipped=skipped)

    def __call__(self, task: LabeledTask, images: Iterable[str]) -> xr.Dataset:
        """The arrays of measured images with a label, of those with these names."""
        rows = np.array([self._position[name] for name in images], dtype=np.int64)
        job = self._session.job(task, images=rows, threads=self._store.attributes["threads"])
        names = image_names(job.dataset.names)
        self._store.add_group(task.group, task.schema(self._session.lens.view, names))
        self._results.append(self._session.fill([job], self._store, self._renew))
        data = open_group(self._store.url, task.group)
        return data.isel(image=(data["measured"].values == MEASURED) & (data["label"].values >= 0)).load()


def _loaded(to: Means | AnyPath) -> Means:
    """The means, without those by class, which are large and would go to every worker."""
    means = to if isinstance(to, Means) else load_means(to)
    return replace(means, class_values={}, class_names=(), class_images={})


def _passes(view: ModelView, tokens: Tokens) -> float:
    """About half of a pass for each head."""
    return sum(block.heads for block in view.blocks) / 2


def _tested_classes(session: Session, classes: str | Collection[str]) -> list[int]:
    """Classes with at least two images, one for each half."""
    known = session.lens.classes
    labels, counts = np.unique(session.labels[session.labels >= 0], return_counts=True)
    images = dict(zip(labels.tolist(), counts.tolist(), strict=True))
    if classes == "all":
        enough = [label for label in images if images[label] > 1]
        if not enough:
            raise ClasslensError(
                f"data {session.dataset.spec!r} has one image of each class: give at least two, or a larger limit or "
                "per_class, since one half of the images chooses heads and the other tests them"
            )
        return sorted(sorted(enough, key=lambda label: -images[label])[:MOST_CLASSES])
    given = list(dict.fromkeys(known.index(name) for name in ([classes] if isinstance(classes, str) else classes)))
    if not given:
        raise ClasslensError("classes has no names: give at least one, or 'all'")
    for label in given:
        if images.get(label, 0) < 2:
            raise ClasslensError(
                f"class {known.names[label]!r} has {images.get(label, 0)} images in data {session.dataset.spec!r}: "
                "give a class with at least two"
            )
    return given


def _measured_classes(
    session: Session, effects: xr.Dataset, tested: Sequence[int], classes: str | Collection[str]
) -> list[int]:
    """The classes of which two images could be measured; raises ClasslensError without any, or without one named."""
    labels, names = effects["label"].values.tolist(), session.lens.classes.names
    enough = [label for label in tested if labels.count(label) > 1]
    missing = [names[label] for label in tested if label not in enough]
    if missing and (classes != "all" or not enough):
        raise ClasslensError(
            f"class {missing[0]!r} has fewer than two images of data {session.dataset.spec!r} that could be read: give "
            "another class or other images"
        )
    return enough


def _digest(reference: Reference) -> str:
    """Digest of the reference, which a resumed run must repeat."""
    if reference == "zero":
        return "zero"
    digest = hashlib.sha256()
    for key in sorted(reference.values):
        digest.update(key.encode() + reference.values[key].contiguous().numpy().tobytes())
    return digest.hexdigest()
