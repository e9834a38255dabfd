"""Training probes over a data set and measuring what they read on another, into a store."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from classlens.core.probes import LinearProbes
from classlens.data.class_mapping import map_classes
from classlens.data.dataset import Dataset
from classlens.data.loading import Reader, split
from classlens.data.registry import open_dataset
from classlens.engine.batch_size import chosen_batch_size
from classlens.engine.ram import bytes_of
from classlens.engine.work import MeasureResult, Progress, reading
from classlens.errors import ClasslensError, require_extra, unknown
from classlens.forward.streaming import stream
from classlens.lens.lens import Lens, load
from classlens.lens.tuned_lens import TunedLens
from classlens.models.view import ModelView
from classlens.store.lock import only_writer
from classlens.store.probe_folder import KINDS, Place, ProbeFiles
from classlens.store.provenance import identity_of
from classlens.store.provenance import transform_pixels as probed_pixels
from classlens.store.schema import Array
from classlens.store.store import SHARD, require_same
from classlens.tasks.probes.logistic import LogisticFeatures
from classlens.tasks.probes.plan import Plan, left_of, places_of, plan, probe_sites, token_range
from classlens.tasks.probes.ridge import LeaveOneOut, RidgeSums
from classlens.tasks.tokens.conditions import CLEAN
from classlens.tasks.tokens.measure import measure

Kind = Literal["ridge", "pooled", "logistic"]
CONDITION_OF: Mapping[str, str] = dict(zip(("ridge", "pooled", "logistic"), KINDS, strict=True))
"""The condition under which probes of each kind are measured."""
STORE = "probes.zarr"
ALPHAS = (0.01, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4)
"""Among these leave-one-out chooses."""


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """What was trained and measured."""

    outcome: MeasureResult
    """Of the store, in which the probes are the condition ``condition``."""
    condition: str
    files: ProbeFiles
    trained: int
    """Probes of this run; those that were there before are not counted."""
    passes: int
    """Forward passes over the training images of this run, those for leave-one-out as well."""
    seconds: float
    """Of training."""


def probe(
    model: str | Path | nn.Module | ModelView | Lens,
    train: str | Dataset,
    test: str | Dataset,
    out: str | os.PathLike[str],
    *,
    sites: str | Collection[str] = ("attn_out", "mlp_out", "resid_post"),
    kind: Kind = "ridge",
    alpha: float | Literal["loo"] = 1.0,
    tokens: Literal["all", "prefix", "image", "cls"] | None = None,
    memory: int | str = "8GB",
    train_split: str | None = None,
    train_per_class: int | None = None,
    train_limit: int | None = None,
    test_split: str | None = None,
    test_per_class: int | None = None,
    test_limit: int | None = None,
    seed: int = 0,
    shuffle: bool = False,
    batch_size: int | Literal["auto"] = "auto",
    workers: int | None = None,
    skip_bad: bool = False,
    tuned_lens: str | os.PathLike[str] | TunedLens | None = None,
    report: Callable[[Progress], None] = lambda _: None,
    **options: Any,
) -> ProbeResult:
    """Train linear probes of every token, site and block, and measure what they read beside the class projection.

        found = classlens.probe(
            "builtin:cifar10", "cifar10:/data", "cifar10:/data", "probes", train_split="train", train_per_class=100
        )
        classlens.open_store(found.outcome.store, "probe")["rank"].sel(site="resid_post")

    Ridge probes (targets ±1, with an intercept) need one pass over the training images, whatever their number, where
    their sums fit the memory, else ``⌈need / memory⌉``. What is finished stays: a run that was stopped goes on with the
    pass in which it was. The store ``out/probes.zarr`` is one of ``classlens.measure``, with the conditions ``clean``,
    the probes', and with ``tuned_lens`` also ``tuned``. Source: the paper, section 4 and appendix; design, section 6.

    Args:
        model: as for ``classlens.load``, or a lens.
        train, test: data as for ``classlens.measure``; training images need labels.
        out: a folder; probes stand in one folder for each kind, float32, 4 × width × classes bytes each.
        sites: some of ``embed, attn_out, resid_mid, mlp_out, resid_post``.
        kind: ``"ridge"``, a probe of each token (the paper's); ``"pooled"``, one for all image tokens of a site and
            block; ``"logistic"``, scikit-learn's logistic regression of each token, for comparison.
        alpha: the ridge's, 1 in the paper; ``"loo"`` chooses it for each probe by leave-one-out in closed form, with a
            second pass. For logistic probes the inverse of scikit-learn's ``C``.
        tokens: ``"all"``, ``"prefix"``, ``"image"`` or ``"cls"``.
        memory: of the sums and features of one pass, such as ``"8GB"``; the model and Python come on top.
        train_split, train_per_class, train_limit, test_split, test_per_class, test_limit, shuffle: which images; the
            paper trains on ten a class.
        seed: of drawn subsets.
        batch_size, workers, skip_bad, report: as for ``classlens.measure``.
        tuned_lens: a tuned lens, measured beside.
        options: passed to ``classlens.load``.

    Raises:
        ClasslensError: data without labels, or the same images for training and test; sites, tokens or memory that do
            not go; a folder with probes of other images or settings; and all that ``classlens.measure`` raises.
    """
    if kind not in CONDITION_OF:
        raise unknown("kind", kind, CONDITION_OF)
    if kind == "logistic":
        require_extra("probes", "sklearn")
    chosen = _alpha(alpha, kind)
    room = bytes_of(memory)
    drawn = seed if shuffle else None
    learned, tested = (
        data
        if isinstance(data, Dataset)
        else open_dataset(str(data), split=part, per_class=per_class, limit=limit, seed=drawn)
        for data, part, per_class, limit in (
            (train, train_split, train_per_class, train_limit),
            (test, test_split, test_per_class, test_limit),
        )
    )
    _check_apart(learned, tested)
    lens = model if isinstance(model, Lens) else load(model, **options)
    if tuned_lens is not None:
        lens.with_tuned_lens(tuned_lens)  # what does not fit is refused before anything is trained
    wanted = probe_sites(sites, lens.view)
    pixels = probed_pixels(lens.preprocessing)
    size = lens.view.tokens((int(pixels.shape[1]), int(pixels.shape[2])))
    pooled = kind == "pooled"
    if tokens is None:
        tokens = "image" if pooled else "all"
    span = token_range(tokens, lens.view, size)
    if pooled and tokens != "image":
        raise ClasslensError(f"pooled probes read all image tokens alike, not tokens {tokens!r}: leave tokens out")
    labels = map_classes(learned, lens.classes, model_name=lens.view.name)
    if not (labels >= 0).any():
        raise ClasslensError(f"data {learned.spec!r} has no labels, which probes learn: give labeled training images")
    map_classes(tested, lens.classes, model_name=lens.view.name)
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ClasslensError(f"output {str(folder)!r} is a file: expected a folder; give another --out")
    files = ProbeFiles(folder / CONDITION_OF[kind])
    batch = chosen_batch_size(batch_size, files.note, lens.view, size.count)
    note = {
        **identity_of(lens, learned, pixels, batch_size=batch, seed=seed),
        "model": lens.view.name,
        "data": learned.spec,
        "kind": kind,
        "alpha": chosen,
        "sites": list(wanted),
        "tokens": [span.start, span.stop],
    }
    started = time.perf_counter()
    with only_writer(str(files.folder), local=True):
        begun = files.note
        if begun is None:
            files.begin(note)
        else:
            require_same(str(files.folder), begun, {key: one for key, one in note.items() if key != "model"})
        files.clear_leftovers()
        trainer = _Trainer(lens, learned, labels, kind, chosen, files, batch, workers, skip_bad, tuple(pixels.shape))
        # The passes are those of an undisturbed run, less what is done: sums in other groups differ in the last digits.
        every, done = places_of(lens.view, wanted, span), files.places()
        planned = trainer.plan(every if left_of(every, done) else [], room)
        planned = replace(planned, passes=tuple(tuple(rest) for one in planned.passes if (rest := left_of(one, done))))
        sweeps = len(planned.passes) * (2 if chosen == "loo" else 1)
        total = sweeps * len(learned) + len(tested)
        trainer.train(planned, partial(_of_all, report, started, total))
        seconds = time.perf_counter() - started
    behind = total - len(tested)
    conditions = [CLEAN, *(["tuned"] if tuned_lens is not None else []), CONDITION_OF[kind]]
    outcome = measure(
        lens,
        tested,
        folder / STORE,
        conditions=conditions,
        sites=wanted,
        seed=seed,
        batch_size=_for_probes(batch_size, lens.view),
        workers=workers,
        skip_bad=skip_bad,
        tuned_lens=tuned_lens,
        probes=folder,
        report=lambda now: report(replace(now, done=now.done + behind, images=total, before=now.before + behind)),
    )
    return ProbeResult(outcome, CONDITION_OF[kind], files, trainer.trained, sweeps, seconds)


class _Trainer:
    """Goes over the training images once for each pass of a plan."""

    def __init__(
        self,
        lens: Lens,
        data: Dataset,
        labels: Array,
        kind: Kind,
        alpha: float | str,
        files: ProbeFiles,
        batch_size: int,
        workers: int | None,
        skip_bad: bool,
        shape: tuple[int, ...],
    ) -> None:
        self._lens, self._data, self._kind, self._alpha, self._files = lens, data, kind, alpha, files
        self._labels = torch.as_tensor(labels, dtype=torch.int64)
        self._batch_size, self._workers, self._skip_bad = batch_size, workers, skip_bad
        self._reader = Reader(data, lens.preprocessing, shape, (1, 1))
        self._width = lens.view.blocks[0].attn.weight.shape[0]
        self._classes = lens.view.num_classes
        self.trained = 0

    @property
    def _pooled(self) -> bool:
        return self._kind == "pooled"

    def plan(self, places: Sequence[Place], memory: int) -> Plan:
        width, images = self._width, len(self._data)
        if self._kind == "logistic":
            each = LogisticFeatures.bytes_of(width, images)
        else:
            each = RidgeSums.bytes_of(1, width, self._classes)
            if self._alpha == "loo":
                each = max(each, LeaveOneOut.bytes_of(1, width, self._classes))
        if not places:
            return Plan((), 1)
        rows = places[0].stop - places[0].start if self._pooled else 1
        features = torch.promote_types(self._lens.view.dtype, torch.float32).itemsize * width * rows
        return plan(
            places, memory, each=each, features=features, least=self._batch_size, pooled=self._pooled, images=images
        )

    def train(self, planned: Plan, report: Callable[[str, int], None]) -> None:
        behind = 0
        for number, places in enumerate(planned.passes):
            told = f"pass {number + 1} of {len(planned.passes)}" if len(planned.passes) > 1 else "training images"
            learners = {place: self._learner(place) for place in places}
            self._sweep(places, planned.buffer, partial(self._add, learners), partial(_told, report, told, behind))
            behind += len(self._data)
            if self._alpha == "loo":
                report("decomposing", behind)
                choices = {
                    place: learners.pop(place).leave_one_out(ALPHAS)  # type: ignore[union-attr]
                    for place in places
                }
                leave = partial(self._leave_out, choices)
                self._sweep(places, planned.buffer, leave, partial(_told, report, f"{told}, leaving out", behind))
                behind += len(self._data)
                for place in places:
                    self._write(place, *choices.pop(place).solve())
                continue
            for done, place in enumerate(places):
                report(f"solving {done + 1} of {len(places)}", behind)
                learner = learners.pop(place)
                alpha = float(self._alpha)
                self._write(place, learner.solve(alpha), torch.full((_count(place, self._pooled),), alpha))

    def _learner(self, place: Place) -> RidgeSums | LogisticFeatures:
        made = LogisticFeatures if self._kind == "logistic" else RidgeSums
        return made(_count(place, self._pooled), self._width, self._classes)

    def _write(self, place: Place, probes: LinearProbes, alpha: Tensor) -> None:
        self._files.write(place, probes, alpha)
        self.trained += len(alpha)

    def _add(
        self, learners: Mapping[Place, RidgeSums | LogisticFeatures], place: Place, x: Tensor, label: Tensor
    ) -> None:
        learners[place].update(*self._rows(x, label))

    def _leave_out(self, choices: Mapping[Place, LeaveOneOut], place: Place, x: Tensor, label: Tensor) -> None:
        choices[place].update(*self._rows(x, label), rows_an_image=x.shape[1] if self._pooled else 1)

    def _rows(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Features as ``[row, place, width]``, where all tokens of a pooled probe are rows of one place."""
        if not self._pooled:
            return x, label
        return x.flatten(0, 1)[:, None], label.repeat_interleave(x.shape[1])

    def _sweep(
        self,
        places: Sequence[Place],
        buffer: int,
        add: Callable[[Place, Tensor, Tensor], None],
        report: Callable[[int], None],
    ) -> None:
        """One pass over the training images; ``add(place, [image, token, width], label)`` of some images at once."""
        wanted: dict[tuple[str, int], list[Place]] = {}
        for place in places:
            wanted.setdefault((place.site, place.block), []).append(place)
        sites = {place.site for place in places}
        held: dict[Place, Tensor] = {}
        labels: list[Tensor] = []
        filled = 0

        def flush() -> None:
            nonlocal filled
            if filled:
                label = torch.cat(labels)
                for place, x in held.items():
                    add(place, x[:filled], label)
            filled = 0
            labels.clear()

        def receive(site: str, block: int, x: Tensor) -> None:
            for place in wanted.get((site, block), ()):
                read = x[:, place.tokens]
                if place not in held:
                    dtype = torch.promote_types(x.dtype, torch.float32)
                    held[place] = torch.empty(buffer, *read.shape[1:], dtype=dtype)
                held[place][filled : filled + len(read)] = read

        for part, pixels, label in self._batches():
            # A buffer may hold fewer images than a batch.
            for start in range(0, len(pixels), buffer):
                some = slice(start, start + buffer)
                if filled + len(pixels[some]) > buffer:
                    flush()
                stream(self._lens.view, pixels[some], sites, receive)
                labels.append(label[some])
                filled += len(label[some])
            report(part.stop)
        flush()

    def _batches(self) -> Iterator[tuple[range, Tensor, Tensor]]:
        """Pixels and labels of the images that have a label and can be read."""
        units = split(range(len(self._data)), self._batch_size)
        for batch in reading(self._reader, units, self._batch_size, self._workers):
            if batch.problems and not self._skip_bad:
                why = batch.problems[min(batch.problems)]
                raise ClasslensError(f"{why}; --skip-bad (skip_bad=True) leaves it out")
            label = self._labels[batch.images.start : batch.images.stop]
            good = label >= 0
            good[[index - batch.images.start for index in batch.problems]] = False
            yield batch.images, batch.pixels[good], label[good]


def _count(place: Place, pooled: bool) -> int:
    """How many probes a place is."""
    return 1 if pooled else place.stop - place.start


def _told(report: Callable[[str, int], None], doing: str, behind: int, done: int) -> None:
    report(doing, behind + done)


def _of_all(report: Callable[[Progress], None], started: float, total: int, doing: str, done: int) -> None:
    report(Progress(done, total, 0, 0, time.perf_counter() - started, doing))


def _alpha(alpha: float | str, kind: str) -> float | Literal["loo"]:
    if alpha == "loo":
        if kind == "logistic":
            raise ClasslensError("alpha 'loo' is for ridge probes: give logistic probes a number")
        return "loo"
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not alpha > 0:
        raise ClasslensError(f"alpha {alpha!r} cannot be used: give a number above 0, or loo")
    return float(alpha)


def _for_probes(batch_size: int | Literal["auto"], view: ModelView) -> int | Literal["auto"]:
    """More images at once than elsewhere: every batch goes through the weights of all probes."""
    return SHARD if batch_size == "auto" and view.device.type == "cpu" else batch_size


def _check_apart(train: Dataset, test: Dataset) -> None:
    """Probes that are tested on what they were trained on tell nothing."""
    same = (train.spec, train.split) == (test.spec, test.split)
    both = set(train.names) & set(test.names) if same else set()
    if both:
        raise ClasslensError(
            f"{len(both)} images of data {test.spec!r} are both for training and test, such as {min(both)!r}: give "
            "other splits"
        )
