"""Mean activations of a model over a data set, written to a file for ablations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from classlens.core.arguments import AnyPath, AtLeast0, AtLeast1, Seed
from classlens.core.path_arguments import checked_with_home
from classlens.data.dataset import Dataset
from classlens.engine.batch_size import BatchSize
from classlens.engine.model_source import Model, ModelSource
from classlens.engine.progress import Report, Tracker, no_report
from classlens.engine.ray import Cluster
from classlens.engine.session import Engine, RunOptions, Selection, Session
from classlens.errors import ClasslensError, cause
from classlens.forward.isolation import isolated
from classlens.forward.means import Means
from classlens.lens.means_file import read_means, write_means
from classlens.store.atomic import atomic_write, clear_leftovers
from classlens.store.lock import only_writer
from classlens.store.provenance import description, require_same
from classlens.tasks.means.task import CLASS_SUMS, MeansTask
from classlens.tasks.means.totals import Checkpoint, Totals


@dataclass(frozen=True, eq=False)
class MeansResult:
    """Measured means and their run.

    Args:
        file: where they are written.
        means: the means.
        skipped: reasons by name of the skipped images.
        seconds: time of measuring.
    """

    file: Path
    means: Means
    skipped: dict[str, str]
    seconds: float


@isolated
@checked_with_home
def means(
    model: Model,
    data: str | Dataset,
    out: AnyPath,
    *,
    by_class: bool = False,
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
    report: Report = no_report,
    **options: Any,
) -> MeansResult:
    """Measure mean activations over a data set and write them to a file, as references of ablations.

    For each block and each token position: the output of both sublayers, the output of each head, and each hidden unit
    of the MLP, averaged over images at the same token. Sums are float64, means float32. The file has 4 × blocks ×
    tokens × (3 × width + hidden units) bytes, 51 MB for ViT-B/16.

    Args:
        model: as for ``classlens.load``, or a lens (``engine="local"`` only).
        data: as for ``classlens.measure``; labels matter to ``by_class`` alone.
        out: a file ending in ``.safetensors``. A stopped run resumes.
        by_class: add means over the images of each class, for ``Means.by_class``; for each prefix token, and for all
            image tokens together.
        split: split of the data.
        label_column: column of a table that has the classes (see ``open_dataset``).
        per_class: maximum number of images per class.
        limit: maximum number of images, spread evenly over the classes of labeled data.
        shuffle: draw images with ``seed``; the first images are taken otherwise.
        seed: random seed of drawn samples.
        batch_size: images per forward pass: up to 64, or a multiple of 64.
        workers: processes that decode images (``engine="local"``).
        skip_bad: skip unreadable images in place of stopping.
        engine: ``"local"``, or ``"ray"`` to run the model on a cluster. Both give the same bits.
        cluster: where Ray runs.
        report: called with a ``Progress`` as images are finished.
        options: passed to ``classlens.load``.

    Returns:
        A ``MeansResult``; its ``means`` go to ``to=`` of an ablation.

    Raises:
        ClasslensError: a file of another run, data without labels for ``by_class``, no readable image, and everything
            that ``classlens.measure`` raises for data and model.

    Source: mean ablation as by Wang et al., *Interpretability in the Wild*, ICLR 2023.

    Examples:
        >>> import classlens
        >>> result = classlens.means("builtin:photos", "folder:photos", "means.safetensors")  # doctest: +SKIP
        >>> edit = classlens.AblateHeads([0, 2], blocks=[4], to=result.means)  # doctest: +SKIP
    """
    path = Path(out)
    if path.suffix != ".safetensors" or path.is_dir():
        raise ClasslensError(f"output {str(path)!r} is no name of means: give a file ending in .safetensors")
    run = RunOptions(
        seed=seed,
        batch_size=batch_size,
        workers=workers,
        skip_bad=skip_bad,
        engine=engine,
        cluster=cluster or Cluster(),
        report=report,
    )
    selection = Selection(split=split, label_column=label_column, per_class=per_class, limit=limit, shuffle=shuffle)
    dataset = selection.open(data, seed)
    session = Session(ModelSource(model, options), dataset, run, labeled=by_class, outputs="any")
    if by_class:
        session.require_labels("means by class need")
    settings = {"by_class": by_class, **session.training_settings()}
    with only_writer(str(path), local=True):
        clear_leftovers(path.parent, f".{path.name}.*")
        finished = _finished(path, settings)
        if finished is not None:
            return finished
        totals = Totals(session.labels if by_class else None)
        checkpoint = Checkpoint(checkpoint_of(path), settings, session.lens.view.name)
        checkpoint.restore(totals)
        tracker = Tracker(report, len(dataset), totals.next_image)
        _sum(session, by_class, totals, checkpoint, tracker)
        measured = _means(session, totals, settings["weights"])
        skipped = {dataset.names[index]: problem for index, problem in sorted(totals.problems.items())}
        result = MeansResult(path, measured, skipped, tracker.seconds)
        _write(result, session, settings)
        checkpoint.path.unlink(missing_ok=True)
        return result


def checkpoint_of(path: Path) -> Path:
    """The file of an unfinished run."""
    return path.with_name(f"{path.name}.sums")


def _sum(session: Session, by_class: bool, totals: Totals, checkpoint: Checkpoint, tracker: Tracker) -> None:
    """Add up the images that remain."""
    first, adding = totals.next_image, False
    try:
        with session.connected():
            for result in session.stream(session.job(MeansTask(by_class)), first):
                adding = True
                totals.add(result)
                adding = False
                tracker.advance(len(result.images), len(result.problems))
                checkpoint.save_if_due(totals)
    except BaseException:
        if totals.next_image > first and not adding:
            checkpoint.save(totals)
        raise


def _means(session: Session, totals: Totals, weights: str) -> Means:
    """Means of the sums, float32; raises ClasslensError without a readable image."""
    view, dataset, tokens = session.lens.view, session.dataset, session.tokens
    if not totals.images:
        raise ClasslensError(f"data {dataset.spec!r} has no readable image: expected some to average over; give others")
    # Number of tokens of each kind over the images of each class that has any.
    present = totals.class_images > 0
    counts = totals.class_images[present][:, None].repeat(1, len(tokens.prefix) + 1).double()
    counts[:, -1] *= tokens.count - len(tokens.prefix)
    values: dict[str, Tensor] = {}
    class_values: dict[str, Tensor] = {}
    for key, sums in totals.sums.items():
        if key.startswith(CLASS_SUMS):
            if not bool(present.any()):
                raise ClasslensError(
                    f"data {dataset.spec!r} has no readable image with a label, which means by class need: give others"
                )
            class_values[key.removeprefix(CLASS_SUMS)] = (sums[present] / counts[:, :, None]).float()
        else:
            values[key] = (sums / totals.images).float()
    images = zip(totals.classes, totals.class_images.tolist(), strict=True)
    class_images = {index: count for index, count in images if count}
    names = tuple(session.lens.classes.names) if totals.classes else ()
    return Means(view.name, weights, dataset.spec, totals.images, tokens, values, class_values, names, class_images)


def _write(result: MeansResult, session: Session, settings: Mapping[str, Any]) -> None:
    """Write the file, completely or not at all."""
    run = {"skipped": result.skipped, "seconds": result.seconds, **description(session.lens, session.dataset)}
    metadata = {"settings": json.dumps(settings), "run": json.dumps(run)}
    try:
        with atomic_write(result.file) as temporary:
            write_means(result.means, temporary, metadata)
    except (OSError, SafetensorError) as error:
        raise ClasslensError(
            f"means {str(result.file)!r} cannot be written ({cause(error)}): make room or give another --out"
        ) from None


def _finished(path: Path, settings: Mapping[str, Any]) -> MeansResult | None:
    """The result of a finished run; raises ClasslensError for that of other images or settings."""
    if not path.exists():
        return None
    measured, metadata = read_means(path)
    try:
        begun, run = json.loads(metadata["settings"]), json.loads(metadata["run"])
        result = MeansResult(path, measured, dict(run["skipped"]), float(run["seconds"]))
        begun = {**begun, "model": measured.model}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ClasslensError(
            f"means {str(path)!r} have no record of their run: expected a file of `classlens means`; give another --out"
        ) from None
    require_same(str(path), begun, settings)
    return result
