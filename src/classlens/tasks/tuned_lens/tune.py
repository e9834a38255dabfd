"""Training a tuned lens: an affine translator per block, whose projection matches the model's output."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from classlens.core.arguments import AnyPath, AtLeast0, AtLeast1, Positive, Seed, Share
from classlens.core.path_arguments import checked_with_home
from classlens.data.dataset import Dataset
from classlens.engine.batch_size import BatchSize
from classlens.engine.model_source import Model, ModelSource
from classlens.engine.progress import Report, Tracker, no_report
from classlens.engine.ram import parse_ram
from classlens.engine.ray import Cluster
from classlens.engine.session import Engine, RunOptions, Selection, Session
from classlens.errors import ClasslensError, cause
from classlens.forward.isolation import isolated
from classlens.lens.tuned_lens import TunedLens, read_tuned_lens
from classlens.models.view import ModelView
from classlens.store.atomic import atomic_write, clear_leftovers
from classlens.store.lock import only_writer
from classlens.store.provenance import require_same
from classlens.tasks.tuned_lens.state_cache import TrainingStates
from classlens.tasks.tuned_lens.training import TokenChoice, TrainingState, TunedLensTrainer

_SAVE_SECONDS = 20.0
"""Least time between two saves within an epoch."""
_SAVE_SHARE = 0.1
"""Largest share of the time that they take."""


@dataclass(frozen=True, eq=False)
class TuneResult:
    """A tuned lens and its divergences (KL, in nats) from the model's output, means over held-out images.

    Args:
        file: where it is written.
        tuned_lens: the translators.
        blocks: per block ``block``, ``plain`` and ``tuned``, the divergence without and with its translator, and
            ``epoch``, the epoch of the translator (0 is the identity).
        constant: divergence of one answer for all images, the mean output over the training images.
        epochs: number of epochs.
        images: number of training images.
        held_out: number of held-out images.
        seconds: time of the training.
    """

    file: Path
    tuned_lens: TunedLens
    blocks: list[dict[str, float]]
    constant: float
    epochs: int
    images: int
    held_out: int
    seconds: float


@isolated
@checked_with_home
def tune(
    model: Model,
    data: str | Dataset,
    out: AnyPath,
    *,
    tokens: TokenChoice = "all",
    epochs: AtLeast1 = 30,
    patience: AtLeast1 = 4,
    learning_rate: Positive = 1e-3,
    held_out: Share = 0.1,
    control: bool = False,
    ram: int | str = "8GB",
    split: str | None = None,
    label_column: str | None = None,
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
) -> TuneResult:
    """Train a tuned lens on unlabeled images and write it to a file for ``lens.with_tuned_lens``.

    The translator of a block, ``x -> W x + b``, begins as the identity and is trained (Adam, cosine schedule) to lower
    ``KL(p ‖ q)``: ``p`` is the model's output, ``q`` the output of its head on the translated tokens of the block. Each
    block keeps the epoch with the least divergence on held-out images, so no block gets worse than the plain
    projection; the identity is optimal for the last block.

    Args:
        model: as for ``classlens.load``, or a lens (``engine="local"`` only).
        data: as for ``classlens.measure``; labels are ignored.
        out: a file ending in ``.safetensors``. A stopped run resumes within its epoch.
        tokens: ``"pooled"``: the tokens that the head pools, decoded as the head decodes them. ``"all"``: half of the
            objective is that, half the mean over all tokens, each of which is to match its own logits after the last
            block.
        epochs: maximum number of epochs.
        patience: epochs without an improvement of any block before the training ends.
        learning_rate: initial learning rate of Adam.
        held_out: share of images that choose the epochs, between 0 and 1.
        control: match the output for another image: a lens with enough capacity lowers its divergence from the model's
            output without any information about the image.
        ram: RAM for the states of all images, so that the model runs once; otherwise it runs every epoch.
        split: split of the data.
        label_column: column of a table whose classes ``limit`` is spread over, or ``"none"`` (see ``open_dataset``).
        limit: maximum number of images, spread evenly over the classes of labeled data.
        shuffle: draw ``limit`` images with ``seed``; the first images are taken otherwise.
        seed: random seed of held-out images, their order and drawn samples.
        batch_size: images per forward pass: up to 64, or a multiple of 64.
        workers: processes that decode images (``engine="local"``).
        skip_bad: skip unreadable images in place of stopping.
        engine: ``"local"``, or ``"ray"`` to run the model on a cluster; the translators are trained on this machine.
        cluster: where Ray runs.
        report: called with a ``Progress`` as images are finished.
        options: passed to ``classlens.load``.

    Returns:
        A ``TuneResult``.

    Raises:
        ClasslensError: settings out of range, too few images, a file of another run, and everything that
            ``classlens.measure`` raises for data and model.

    Source: Belrose et al., *Eliciting Latent Predictions from Transformers with the Tuned Lens*, 2023.

    Examples:
        >>> import classlens
        >>> result = classlens.tune(
        ...     "builtin:cifar10", "cifar10:/data", "lens.safetensors", split="train", limit=5000
        ... )  # doctest: +SKIP
        >>> tuned = classlens.load("builtin:cifar10").with_tuned_lens("lens.safetensors")  # doctest: +SKIP
    """
    available = parse_ram(ram)
    path = Path(out)
    if path.suffix != ".safetensors" or path.is_dir():
        raise ClasslensError(f"output {str(path)!r} is no name of a tuned lens: give a file ending in .safetensors")
    run = RunOptions(
        seed=seed,
        batch_size=batch_size,
        workers=workers,
        skip_bad=skip_bad,
        engine=engine,
        cluster=cluster or Cluster(),
        report=report,
    )
    selection = Selection(split=split, label_column=label_column, limit=limit, shuffle=shuffle)
    dataset = selection.open(data, seed)
    session = Session(ModelSource(model, options), dataset, run, labeled=False)
    view = session.lens.view
    settings = session.training_settings(
        tokens=tokens,
        epochs=epochs,
        patience=patience,
        learning_rate=learning_rate,
        held_out=held_out,
        control=control,
    )
    key = json.dumps(settings, sort_keys=True)
    images = len(dataset)
    with only_writer(str(path), local=True):
        clear_leftovers(path.parent, f".{path.name}.*")
        finished = _finished(path, view, settings)
        if finished is not None:
            return finished
        order = np.random.default_rng(seed).permutation(images)
        held_out_images = max(1, round(held_out * images))
        if images - held_out_images < 1:
            raise ClasslensError(f"data {dataset.spec!r} has {images} images: give at least 2, better thousands")
        tracker = Tracker(report, images, doing="running the model")
        states = TrainingStates(
            session, available, pooled_only=tokens == "pooled", report=lambda done: tracker.at(done)
        )
        states.load()
        train, apart = order[held_out_images:], order[:held_out_images]
        trainer = TunedLensTrainer(view, states, train, apart, tokens, control, seed)
        checkpoint = checkpoint_of(path)
        with session.connected():
            state = _resumed(checkpoint, settings, view) or trainer.begin()
            tracker.restart(epochs * images, state.epoch * images)
            while state.epoch < epochs and state.epochs_without_improvement < patience:
                begun = state.epoch * images
                doing = f"epoch {state.epoch + 1} of at most {epochs}"
                save = _Saver(checkpoint, key, state)
                trainer.epoch(state, epochs, learning_rate, partial(_report_epoch, tracker, begun, doing), save.if_due)
                save.now()
            constant = trainer.constant()
        blocks = [
            {"block": block, "plain": plain, "tuned": tuned, "epoch": epoch}
            for block, (plain, tuned, epoch) in enumerate(zip(state.plain, state.tuned, state.chosen, strict=True))
        ]
        result = TuneResult(path, state.best, blocks, constant, state.epoch, len(train), len(apart), tracker.seconds)
        fields = {name: getattr(result, name) for name in _FIELDS}
        metadata = {"training": key, "result": json.dumps({**fields, "data": dataset.spec})}
        try:
            with atomic_write(path) as temporary:
                temporary.write_bytes(state.best.to_bytes(view, metadata))
        except OSError as error:
            raise ClasslensError(
                f"tuned lens {str(path)!r} cannot be written ({cause(error)}): give another --out"
            ) from None
        checkpoint.unlink(missing_ok=True)
        return result


def _report_epoch(tracker: Tracker, begun: int, doing: str, done: int) -> None:
    tracker.at(begun + done, doing)


_FIELDS = ("blocks", "constant", "epochs", "images", "held_out", "seconds")


def _finished(path: Path, view: ModelView, settings: Mapping[str, Any]) -> TuneResult | None:
    """The result of a finished run; raises ClasslensError for that of other images or settings."""
    if not path.exists():
        return None
    tuned_lens, metadata = read_tuned_lens(path, view)
    try:
        begun, fields = json.loads(metadata["training"]), json.loads(metadata["result"])
        result = TuneResult(path, tuned_lens, **{name: fields[name] for name in _FIELDS})
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ClasslensError(
            f"tuned lens {str(path)!r} has no record of its training: expected a file of `classlens tune`; give "
            "another --out"
        ) from None
    _require_same(path, begun, settings)
    return result


def checkpoint_of(path: Path) -> Path:
    """The file of an unfinished training."""
    return path.with_name(f"{path.name}.training")


class _Saver:
    """Writes the state of the training, completely or not at all."""

    def __init__(self, checkpoint: Path, key: str, state: TrainingState) -> None:
        self._checkpoint, self._key, self._state = checkpoint, key, state
        self._last, self._cost = time.perf_counter(), 0.0

    def if_due(self) -> None:
        """Save where enough time has passed."""
        if time.perf_counter() - self._last >= max(_SAVE_SECONDS, self._cost / _SAVE_SHARE):
            self.now()

    def now(self) -> None:
        """Save; raises ClasslensError where the disk is full."""
        started = time.perf_counter()
        best = [self._state.best.weight, self._state.best.bias]
        record = {**vars(self._state), "best": best, "settings": self._key}
        try:
            with atomic_write(self._checkpoint) as path:
                torch.save(record, path)
        except (OSError, RuntimeError) as error:  # torch raises the latter on a full disk, without the reason
            reason = cause(error) if isinstance(error, OSError) else "no space left on the device"
            raise ClasslensError(
                f"{str(self._checkpoint)!r} cannot be written ({reason}): make room or give another --out"
            ) from None
        self._last = time.perf_counter()
        self._cost = self._last - started


def _resumed(checkpoint: Path, settings: Mapping[str, Any], view: ModelView) -> TrainingState | None:
    """The state of a stopped run; raises ClasslensError for that of other images or settings."""
    if not checkpoint.exists():
        return None
    try:
        record: Mapping[str, Any] = torch.load(checkpoint, map_location=view.device, weights_only=True)
        begun = json.loads(record["settings"])
        best = TunedLens(*(part.cpu() for part in record["best"]))
        rest = {name: value for name, value in record.items() if name not in ("settings", "best")}
        state = TrainingState(**rest, best=best)
    except Exception as error:  # torch does not bound what a damaged file raises
        raise ClasslensError(f"{str(checkpoint)!r} cannot be resumed ({cause(error)}): remove it") from None
    _require_same(checkpoint, begun, settings)
    return state


def _require_same(path: Path, begun: object, settings: Mapping[str, Any]) -> None:
    """Raises ClasslensError, with the first difference, for a training with other images or settings."""
    require_same(str(path), begun if isinstance(begun, dict) else {}, settings)
