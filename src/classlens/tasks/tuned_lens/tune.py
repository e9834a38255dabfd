"""Training a tuned lens: one affine translator a block, whose projection is to match the model's output."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from classlens.data.dataset import Dataset
from classlens.data.registry import open_dataset
from classlens.engine.batch_size import chosen_batch_size
from classlens.engine.ram import bytes_of
from classlens.engine.work import Progress
from classlens.errors import ClasslensError, cause
from classlens.lens.lens import Lens, load
from classlens.lens.tuned_lens import TunedLens, read_tuned_lens
from classlens.models.view import ModelView
from classlens.store.atomic import clear_leftovers, writing
from classlens.store.lock import only_writer
from classlens.store.provenance import identity_of, transform_pixels
from classlens.tasks.tuned_lens.states import States
from classlens.tasks.tuned_lens.trainer import Tuner, TunerState, Which


@dataclass(frozen=True, eq=False)
class TuneResult:
    """A tuned lens, and how near it comes to the model's output: KL divergences in nats, means over held-out images."""

    file: Path
    tuned_lens: TunedLens
    blocks: list[dict[str, float]]
    """Of each block ``block, plain, tuned``: the divergence from the model's output of its projection without and with
    its translator, and ``epoch``, from which the translator is (0: none was better than the identity)."""
    constant: float
    """The divergence of one answer for all images: the mean output over the training images."""
    epochs: int
    images: int
    held_out: int
    seconds: float


def tune(
    model: str | Path | nn.Module | ModelView | Lens,
    data: str | Dataset,
    out: str | os.PathLike[str],
    *,
    tokens: Which = "all",
    epochs: int = 30,
    patience: int = 4,
    learning_rate: float = 1e-3,
    held_out: float = 0.1,
    control: bool = False,
    memory: int | str = "8GB",
    split: str | None = None,
    limit: int | None = None,
    shuffle: bool = False,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    workers: int | None = None,
    skip_bad: bool = False,
    report: Callable[[Progress], None] = lambda _: None,
    **options: Any,
) -> TuneResult:
    """Train a tuned lens on unlabeled images and write it to a file that ``lens.with_tuned_lens`` reads.

        found = classlens.tune("builtin:cifar10", "cifar10:/data", "lens.safetensors", split="train", limit=5000)
        tuned = classlens.load("builtin:cifar10").with_tuned_lens("lens.safetensors")

    The translator of a block, ``x -> W x + b``, begins as the identity and is trained (Adam, cosine schedule) to lower
    ``KL(p ‖ q)``: ``p`` is what the model answers at its end, ``q`` what its own head reads from the block's tokens
    behind the translator. Each block keeps the epoch with the least divergence on held-out images, so none gets worse
    than the plain projection; at the last block the identity is the best there can be. Source: Belrose et al.,
    *Eliciting Latent Predictions from Transformers with the Tuned Lens*, 2023 (for language models); design, section 6.

    Args:
        model: as for ``classlens.load``, or a lens.
        data: as for ``classlens.measure``; labels are not looked at.
        out: the file, ending in ``.safetensors``. A run that was stopped goes on after its last whole epoch.
        tokens: ``"pooled"``: the tokens that the head pools (``[CLS]``), read as the head reads them. ``"all"``: half
            of the objective is that, half is the mean over all tokens, of which each is to say what it says after the
            last block.
        epochs: at most; ``patience``: epochs without a block that gets better, after which it ends.
        learning_rate: of Adam, at its start.
        held_out: the share of images by which epochs are chosen.
        control: each image is to match the output for another image; a lens that merely has room to learn would lower
            its divergence from the model's output as well.
        memory: for the states of all images, so that the model runs once; where they need more, it runs every epoch.
        split, limit, shuffle, seed, batch_size, workers, skip_bad, report: as for ``classlens.measure``; ``seed`` is
            also that of the order of images and of those held out.
        options: passed to ``classlens.load``.

    Raises:
        ClasslensError: numbers that cannot be used, too few images, a file of another run, and what
            ``classlens.measure`` raises for data and model.
    """
    _check(tokens, epochs, patience, learning_rate, held_out)
    room = bytes_of(memory)
    path = Path(out)
    if path.suffix != ".safetensors" or path.is_dir():
        raise ClasslensError(f"output {str(path)!r} is no name of a tuned lens: give a file ending in .safetensors")
    dataset = data
    if not isinstance(dataset, Dataset):
        dataset = open_dataset(str(data), split=split, limit=limit, seed=seed if shuffle else None)
    lens = model if isinstance(model, Lens) else load(model, **options)
    pixels = transform_pixels(lens.preprocessing)
    count = lens.view.tokens((int(pixels.shape[1]), int(pixels.shape[2]))).count
    batch = chosen_batch_size(batch_size, None, lens.view, count)
    identity = json.dumps(
        {
            **identity_of(lens, dataset, pixels, batch_size=batch, seed=seed),
            "tokens": tokens,
            "epochs": epochs,
            "patience": patience,
            "learning_rate": learning_rate,
            "held_out": held_out,
            "control": control,
        },
        sort_keys=True,
    )
    started = time.perf_counter()
    with only_writer(str(path), local=True):
        clear_leftovers(path.parent, f".{path.name}.*")
        done = _finished(path, lens.view, identity)
        if done is not None:
            return done
        order = np.random.default_rng(seed).permutation(len(dataset))
        apart = max(1, round(held_out * len(dataset)))
        if len(dataset) - apart < 1:
            raise ClasslensError(f"data {dataset.spec!r} has {len(dataset)} images: give at least 2, better thousands")

        def running(images: int) -> None:
            report(Progress(images, len(dataset), 0, 0, time.perf_counter() - started, "running the model"))

        alone = tokens == "pooled"
        shape = tuple(pixels.shape)
        states = States(lens, dataset, shape, batch, workers, skip_bad, room, prefix_only=alone, report=running)
        tuner = Tuner(lens, states, order[apart:], order[:apart], tokens, control, seed)
        kept = path.with_name(f"{path.name}.training")
        state = _resumed(kept, identity, lens.view) or tuner.begin()
        total, before = epochs * len(dataset), state.epoch * len(dataset)
        while state.epoch < epochs and state.waited < patience:

            def told(images: int, epoch: int = state.epoch) -> None:
                doing = f"epoch {epoch + 1} of at most {epochs}"
                done = epoch * len(dataset) + images
                report(Progress(done, total, before, 0, time.perf_counter() - started, doing))

            tuner.epoch(state, epochs, learning_rate, told)
            _keep(kept, identity, state)
        found = TuneResult(
            path,
            state.best,
            [
                {"block": block, "plain": plain, "tuned": tuned, "epoch": epoch}
                for block, (plain, tuned, epoch) in enumerate(zip(state.plain, state.tuned, state.chosen, strict=True))
            ],
            tuner.constant(),
            state.epoch,
            len(order) - apart,
            apart,
            time.perf_counter() - started,
        )
        about = {"blocks": found.blocks, "constant": found.constant, "epochs": found.epochs, "images": found.images}
        note = {**about, "held_out": found.held_out, "seconds": found.seconds, "data": dataset.spec}
        try:
            with writing(path) as temporary:
                state.best.save(temporary, lens.view, {"training": identity, "found": json.dumps(note)})
        except OSError as error:
            raise ClasslensError(
                f"tuned lens {str(path)!r} cannot be written ({cause(error)}): give another --out"
            ) from None
        kept.unlink(missing_ok=True)
        return found


def _finished(path: Path, view: ModelView, identity: str) -> TuneResult | None:
    """The tuned lens that lies there already; raises ClasslensError for that of another run."""
    if not path.exists():
        return None
    tuned_lens, about = read_tuned_lens(path, view)
    if about.get("training") != identity:
        raise ClasslensError(f"tuned lens {str(path)!r} is of other images or settings: give another --out")
    found = json.loads(about["found"])
    found.pop("data")
    return TuneResult(path, tuned_lens, **found)


def _keep(file: Path, identity: str, state: TunerState) -> None:
    """Write down where the run is, whole or not at all."""
    record = {**vars(state), "best": [state.best.weight, state.best.bias], "identity": identity}
    try:
        with writing(file) as made:
            torch.save(record, made)
    except OSError as error:
        raise ClasslensError(
            f"{str(file)!r} cannot be written ({cause(error)}): make room or give another --out"
        ) from None


def _resumed(file: Path, identity: str, view: ModelView) -> TunerState | None:
    """Where a run that was stopped is; raises ClasslensError for one of other images or settings."""
    if not file.exists():
        return None
    try:
        record: Mapping[str, Any] = torch.load(file, map_location=view.device, weights_only=True)
        same = record["identity"] == identity
    except Exception as error:  # what else lies there is not bounded
        raise ClasslensError(f"{str(file)!r} cannot be gone on with ({cause(error)}): remove it") from None
    if not same:
        raise ClasslensError(
            f"{str(file)!r} is of a run with other images or settings: give the same to go on, or remove it"
        )
    best = TunedLens(*(one.cpu() for one in record["best"]))
    return TunerState(**{key: value for key, value in record.items() if key not in ("identity", "best")}, best=best)


def _check(tokens: str, epochs: int, patience: int, learning_rate: float, held_out: float) -> None:
    if tokens not in ("all", "pooled"):
        raise ClasslensError(f"tokens {tokens!r} are not known: give all or pooled")
    for name, value in (("epochs", epochs), ("patience", patience)):
        if value < 1:
            raise ClasslensError(f"{name} is {value}: give at least 1")
    if not learning_rate > 0:
        raise ClasslensError(f"learning rate {learning_rate} cannot be used: give a number above 0, such as 0.001")
    if not 0 < held_out < 1:
        raise ClasslensError(f"held_out {held_out} is no share: give a number between 0 and 1, such as 0.1")
