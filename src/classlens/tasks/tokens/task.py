"""The task of `measure`: facts of every token, under every condition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from classlens.core.arrays import Array
from classlens.core.depth_facts import DepthFacts, depth_facts, group_logits
from classlens.core.norms import large_norms, token_norms
from classlens.core.scores import Facts
from classlens.core.top_tokens import TopTokens
from classlens.data.loading import Batch
from classlens.engine.task import TOTALS, Job
from classlens.errors import ClasslensError
from classlens.forward.agreement import BY, SUBLAYERS, Agreement, AgreementRequest, MemoryTables, Sublayer
from classlens.forward.depth_logits import DepthLogits
from classlens.forward.edits.edit import editing
from classlens.forward.hooks import Receiver
from classlens.forward.run import run
from classlens.forward.streaming import reduce_tokens, stream
from classlens.lens.directions import Directions
from classlens.lens.lens import Lens
from classlens.models.label_groups import LabelGroups
from classlens.models.view import ModelView, Tokens
from classlens.store.probe_folder import ProbeFolder
from classlens.tasks.tokens.attribution.collector import AttributionCollector
from classlens.tasks.tokens.attribution.schema import AttributionAxes
from classlens.tasks.tokens.conditions.registry import CLEAN, CONDITIONS
from classlens.tasks.tokens.decoders import Decoders
from classlens.tasks.tokens.schema import GROUP_TRAJECTORY, NORM, TRAJECTORY, Axes

_TABLES: WeakKeyDictionary[ModelView, MemoryTables] = WeakKeyDictionary()


def memory_tables(view: ModelView) -> MemoryTables:
    """The tables of a model's memories, made once per process."""
    if view not in _TABLES:
        _TABLES[view] = MemoryTables(view)
    return _TABLES[view]


def last_outliers(view: ModelView, pixels: Tensor) -> Tensor:
    """Image tokens whose norm after the last block stands out, bool ``[image, token]``; from a pass of its own."""
    norms = torch.empty(0)

    def receive(block: int, states: Tensor) -> None:
        nonlocal norms
        if block == len(view.blocks) - 1:
            norms = token_norms(states)

    stream(view, pixels, (), lambda *_: None, outputs=receive)
    among = torch.zeros_like(norms, dtype=torch.bool)
    among[:, view.tokens((int(pixels.shape[2]), int(pixels.shape[3]))).image] = True
    return large_norms(norms, among) & among


@dataclass(frozen=True, eq=False)
class TokenTask:
    """Facts of every token. The groups are conditions, and those of contributions, which need ``clean``."""

    conditions: tuple[str, ...]
    axes: Axes
    tokens: Tokens
    decoders: Decoders
    seed: int
    ignore_unknown: bool = True
    label_groups: LabelGroups | None = None
    attribution: AttributionAxes | None = None
    directions: Directions | None = None

    @property
    def groups(self) -> tuple[str, ...]:
        return (*self.conditions, *(() if self.attribution is None else self.attribution.groups))

    @property
    def mask_grid(self) -> tuple[int, int]:
        return self.tokens.grid

    def needs_masks(self, group: str) -> bool:
        return group in CONDITIONS and CONDITIONS[group].needs_masks

    def top_rows(self) -> dict[str, int]:
        """Number of heads or units whose strongest tokens are kept, by group."""
        axes = self.attribution
        return {} if axes is None else {group: axes.rows(group) for group in axes.groups}

    def measurer(self, job: Job) -> TokenMeasurer:
        """Load the models and tables of the conditions."""
        subjects = {}
        for name in dict.fromkeys((*self.conditions, *(() if self.attribution is None else (CLEAN,)))):
            twin = CONDITIONS[name].model == "random_twin"
            lens = job.source.random_twin(self.seed) if twin else job.source.lens
            folder = self.decoders.probe_folder(name)
            # A tuned lens leaves the memories as they are.
            tables = memory_tables(lens.view) if self.axes.memories and folder is None else None
            subjects[name] = Subject(self.decoders.lens(name, lens), tables, folder)
        return TokenMeasurer(self, subjects, job.source.lens, job.labels)


@dataclass(frozen=True, eq=False)
class Subject:
    """The model of a condition, with its memory tables where agreement is measured, or its probes."""

    lens: Lens
    tables: MemoryTables | None = None
    probes: ProbeFolder | None = None


class TokenMeasurer:
    """Measures batches under every condition."""

    def __init__(self, task: TokenTask, subjects: dict[str, Subject], lens: Lens, labels: Array) -> None:
        self._axes, self._tokens, self._subjects = task.axes, task.tokens, subjects
        self._lens, self._labels = lens, labels
        self._attribution, self._directions = task.attribution, task.directions
        self._strongest = {group: TopTokens(rows) for group, rows in task.top_rows().items()}
        self._class_groups = None if task.label_groups is None else task.label_groups.table
        # Drawn for all images at once: the control class of an image does not depend on which others are measured.
        offsets = np.random.default_rng(task.seed).integers(1, max(2, self._axes.classes), size=self._axes.images)
        self._offsets = torch.as_tensor(offsets)

    def measure(self, batch: Batch, groups: Sequence[str]) -> Iterator[tuple[str, Any]]:
        """The arrays of each condition; entries without a measurement hold fill values."""
        label = torch.as_tensor(self._labels[batch.images.start : batch.images.stop])
        target = label
        if bool((label < 0).any()):
            predicted = run(self._lens.view, batch.pixels).argmax(dim=1).cpu()
            target = torch.where(label < 0, predicted, label)
        attributed = {name: top for name, top in self._strongest.items() if name in groups}
        if self._attribution is not None and attributed:
            view = self._lens.view
            given = (view, self._tokens, self._attribution, batch, attributed, self._directions)
            collector = AttributionCollector(*given)
            # The pass of `clean`, also where its facts are stored already: another pass might round differently.
            arrays, logits = self._measure(CLEAN, batch, label, target, collector.receivers)
            if CLEAN in groups:
                yield CLEAN, arrays
            for part, values in collector.groups(logits, label):
                yield TOTALS, part
                yield part.group, values
        for name in groups:
            if name in CONDITIONS and not (name == CLEAN and attributed):
                yield name, self._measure(name, batch, label, target)[0]

    def _measure(
        self, name: str, batch: Batch, label: Tensor, target: Tensor, also: Mapping[str, Receiver] | None = None
    ) -> tuple[dict[str, Array], Tensor]:
        """The arrays of a condition, and the logits; ``also`` are receivers of further points."""
        condition, subject = CONDITIONS[name], self._subjects[name]
        view, count = subject.lens.view, len(batch.images)
        collector = _Collector(self._axes, count, view.device)
        control = (target + self._offsets[batch.images.start : batch.images.stop]) % self._axes.classes
        kept = self._kept_tokens(condition.keeps, batch, view)
        # A mean over no token is not defined; without a mask the kept tokens are not known.
        void = torch.stack([~kept[:, readout.pooled].any(dim=1) for readout in view.readouts]).any(dim=0)
        if condition.needs_masks:
            void |= torch.as_tensor((batch.shows_class < 0).all(axis=1))
        with editing(view, condition.edits(kept | void[:, None])):
            try:
                logits = self._reduce(subject, batch.pixels, target, collector, control, also)
            except ClasslensError as error:
                first, last = batch.images[0], batch.images[-1]
                raise ClasslensError(f"images {first} to {last} under condition {name!r}: {error}") from None
        arrays = collector.arrays()
        prediction = logits.argmax(dim=1).cpu()
        arrays["prediction"][:] = prediction
        arrays["confidence"][:] = logits.float().softmax(dim=1).amax(dim=1).cpu()
        arrays["label"][:] = label
        arrays["target"][:] = target
        arrays["correct"][:] = torch.where(label < 0, -1, (prediction == label).long())
        arrays["kept"][:] = kept
        arrays["class_token"][:, self._tokens.image] = batch.shows_class
        void |= torch.as_tensor(~batch.readable)
        self._blank(arrays, removed=~kept.numpy(), void=void.numpy())
        return arrays, logits

    def _reduce(
        self,
        subject: Subject,
        pixels: Tensor,
        target: Tensor,
        collector: _Collector,
        control: Tensor,
        also: Mapping[str, Receiver] | None,
    ) -> Tensor:
        tables, probes = subject.tables, subject.probes
        # Scores of probes are no logits, and there are none of pooled tokens.
        depths = DepthLogits(subject.lens.view) if self._axes.trajectory and probes is None else None
        logits = reduce_tokens(
            subject.lens.view,
            pixels,
            target,
            self._axes.all_sites,
            collector.put,
            probes=None if probes is None else probes.probes,
            agreement=None if tables is None else AgreementRequest(tables, control, collector.put_agreement),
            inputs=None if depths is None else depths.receive,
            outputs=collector.put_norms if self._axes.norms else None,
            also=also,
        )
        if depths is not None:
            at_depths, own = depths.stack(logits), target.to(logits.device)
            collector.put_trajectory(TRAJECTORY, depth_facts(at_depths, own, self._axes.places))
            if self._class_groups is not None:
                groups = self._class_groups.to(logits.device)
                facts = depth_facts(group_logits(at_depths, groups), groups[own], self._axes.group_places)
                collector.put_trajectory(GROUP_TRAJECTORY, facts)
        return logits

    def _kept_tokens(self, keeps: str, batch: Batch, view: ModelView) -> Tensor:
        kept = torch.ones(len(batch.images), self._tokens.count, dtype=torch.bool)
        if keeps == "ordinary":
            kept[:, self._tokens.image] = ~last_outliers(view, batch.pixels)[:, self._tokens.image].cpu()
        elif keeps != "all":
            # A token that the mask leaves open may show either, so no condition keeps it.
            kept[:, self._tokens.image] = torch.as_tensor(batch.shows_class == (1 if keeps == "class" else 0))
        return kept

    def _blank(self, arrays: dict[str, Array], *, removed: Array, void: Array) -> None:
        """Put fill values at removed tokens and void images."""
        count, schema = len(void), self._axes.schema()
        blank = schema.blank(count)
        for key, values in arrays.items():
            if key not in ("kept", "class_token") and "token" in schema.variables[key].dims and removed.any():
                # The token is the last dim of every array that has one.
                where = np.broadcast_to(removed.reshape(count, *[1] * (values.ndim - 2), -1), values.shape)
                values[where] = blank[key][where]
            values[void] = blank[key][void]


class _Collector:
    """Collects the facts of a batch where the model runs, and moves them to NumPy at the end."""

    def __init__(self, axes: Axes, images: int, device: torch.device) -> None:
        self._images = images
        self._sites = {site: number for number, site in enumerate(axes.sites)}
        self._blank = axes.schema().blank(images)
        self._values = {
            name: torch.as_tensor(values, device=device)
            for name, values in self._blank.items()
            if values.ndim > 1 and name not in ("kept", "class_token")
        }

    def put(self, site: str, block: int, tokens: Tensor | slice, facts: Facts) -> None:
        """Take the facts of some tokens, as rows image by image."""
        for name, value in facts._asdict().items():
            if site == "embed":
                values = self._values[f"embed_{name}"]
                values[:, tokens] = self._rows(value, values)
            else:
                values = self._values[name]
                values[:, self._sites[site], block, tokens] = self._rows(value, values)

    def put_agreement(self, sublayer: Sublayer, block: int, tokens: Tensor | slice, agreement: Agreement) -> None:
        """Take what the strongest memories of some tokens say."""
        number = SUBLAYERS.index(sublayer)
        values, match = self._values["key_value_agreement"], self._values["memory_match"]
        for index, by in enumerate(BY):
            values[:, index, number, block, tokens] = self._rows(agreement.by[by], values)
        match[:, number, block, tokens] = self._rows(agreement.match, match)

    def put_norms(self, block: int, states: Tensor) -> None:
        """Take the tokens after a block."""
        self._values[NORM][:, block] = token_norms(states)

    def put_trajectory(self, prefix: str, facts: DepthFacts) -> None:
        """Take the facts of every depth, of classes or groups."""
        for name, value in facts._asdict().items():
            values = self._values[f"{prefix}_{name}"]
            values[:] = value.to(values.dtype)

    def _rows(self, value: Tensor, like: Tensor) -> Tensor:
        return value.view(self._images, -1).to(like.dtype)

    def arrays(self) -> dict[str, Array]:
        """All arrays of the condition."""
        return self._blank | {name: value.cpu().numpy() for name, value in self._values.items()}
