"""From a batch of pixels to everything that a store holds of it, under one condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from classlens.core.scores import Facts
from classlens.data.loading import Batch
from classlens.errors import ClasslensError
from classlens.forward.agreement import BY, SUBLAYERS, Agreement, AgreementRequest, MemoryTables, Sublayer
from classlens.forward.edits.edit import editing
from classlens.forward.run import run
from classlens.forward.streaming import reduce_tokens
from classlens.lens.lens import Lens
from classlens.models.view import Tokens
from classlens.store.probe_folder import ProbeFiles
from classlens.store.schema import Array, Axes
from classlens.tasks.tokens.conditions import CLEAN, CONDITIONS


@dataclass(frozen=True, eq=False)
class Subject:
    """A model with the tables of its memories, where they are wanted, or the probes that read it."""

    lens: Lens
    tables: MemoryTables | None = None
    probes: ProbeFiles | None = None


class Measurer:
    """Measures batches under every condition that is wanted."""

    def __init__(
        self, subjects: Mapping[str, Subject], axes: Axes, tokens: Tokens, labels: Array, *, seed: int
    ) -> None:
        """``subjects``: what is measured under each condition, and the model under ``clean``."""
        self._axes, self._tokens, self._labels, self._subjects = axes, tokens, labels, subjects
        self._sites = [*axes.sites, *(["embed"] if axes.embed else [])]
        # Drawn for all images at once, so that no image's depends on which are measured.
        offsets = np.random.default_rng(seed).integers(1, max(2, axes.classes), size=axes.images)
        self._offsets = torch.as_tensor(offsets)

    def measure(self, batch: Batch, conditions: Sequence[str]) -> dict[str, dict[str, Array]]:
        """The arrays of each condition, for the images of a batch; what cannot be measured is left blank."""
        label = torch.as_tensor(self._labels[batch.images.start : batch.images.stop])
        target = label
        if bool((label < 0).any()):
            view = self._subjects[CLEAN].lens.view
            predicted = run(view, batch.pixels).argmax(dim=1).cpu()
            target = torch.where(label < 0, predicted, label)
        return {name: self._one(name, batch, label, target) for name in conditions}

    def _one(self, name: str, batch: Batch, label: Tensor, target: Tensor) -> dict[str, Array]:
        condition = CONDITIONS[name]
        subject = self._subjects[name]
        view, count = subject.lens.view, len(batch.images)
        collected = _Collected(self._axes, count, view.device)
        control = (target + self._offsets[batch.images.start : batch.images.stop]) % self._axes.classes
        memorized = None if subject.tables is None else AgreementRequest(subject.tables, control, collected.agree)
        kept = self._kept(condition.keeps, batch)
        # A mean over no token is not defined; neither is what is kept of an image without a mask.
        void = ~kept[:, view.pooled].any(dim=1)
        if condition.keeps is not None:
            void |= torch.as_tensor((batch.shows < 0).any(axis=1))
        with editing(view, condition.edits(kept | void[:, None])):
            try:
                probes = None if subject.probes is None else subject.probes.at
                logits = reduce_tokens(
                    view, batch.pixels, target, self._sites, collected.put, probes=probes, agreement=memorized
                )
            except ClasslensError as error:
                first, last = batch.images[0], batch.images[-1]
                raise ClasslensError(f"images {first} to {last} under condition {name!r}: {error}") from None
        found = collected.arrays()
        prediction = logits.argmax(dim=1).cpu()
        found["prediction"][:] = prediction
        found["label"][:] = label
        found["target"][:] = target
        found["correct"][:] = torch.where(label < 0, -1, (prediction == label).long())
        found["kept"][:] = kept
        found["class_token"][:, self._tokens.image] = batch.shows
        empty = self._axes.layout.blank(count)
        gone = ~kept.numpy()
        void[[index - batch.images.start for index in batch.problems]] = True
        bad = void.numpy()
        for key, values in found.items():
            if key not in ("kept", "class_token") and values.ndim > 1 and gone.any():
                # Tokens are the last axis of everything that has them.
                where = np.broadcast_to(gone.reshape(count, *[1] * (values.ndim - 2), -1), values.shape)
                values[where] = empty[key][where]
            values[bad] = empty[key][bad]
        return found

    def _kept(self, keeps: bool | None, batch: Batch) -> Tensor:
        kept = torch.ones(len(batch.images), self._tokens.count, dtype=torch.bool)
        if keeps is not None:
            shows = torch.as_tensor(batch.shows == 1)
            kept[:, self._tokens.image] = shows if keeps else ~shows
        return kept


class _Collected:
    """Facts of a batch as they come in, where the model runs; moved to numpy at its end."""

    def __init__(self, axes: Axes, images: int, device: torch.device) -> None:
        self._images = images
        self._sites = {site: number for number, site in enumerate(axes.sites)}
        self._empty = axes.layout.blank(images)
        self._values = {
            name: torch.as_tensor(values, device=device)
            for name, values in self._empty.items()
            if values.ndim > 1 and name not in ("kept", "class_token")
        }

    def put(self, site: str, block: int, tokens: Tensor | slice, facts: Facts) -> None:
        for name, value in facts._asdict().items():
            rows = value.view(self._images, -1)
            if site == "embed":
                self._values[f"embed_{name}"][:, tokens] = self._fitting(f"embed_{name}", rows)
            else:
                self._values[name][:, self._sites[site], block, tokens] = self._fitting(name, rows)

    def agree(self, sublayer: Sublayer, block: int, tokens: Tensor | slice, found: Agreement) -> None:
        number = SUBLAYERS.index(sublayer)
        agreement, match = self._values["key_value_agreement"], self._values["memory_match"]
        for place, by in enumerate(BY):
            agreement[:, place, number, block, tokens] = self._fitting("key_value_agreement", self._rows(found.by[by]))
        match[:, number, block, tokens] = self._fitting("memory_match", self._rows(found.match))

    def _rows(self, values: Tensor) -> Tensor:
        return values.view(self._images, -1)

    def _fitting(self, name: str, rows: Tensor) -> Tensor:
        return rows.to(self._values[name].dtype)

    def arrays(self) -> dict[str, Array]:
        found: dict[str, Any] = {name: value.cpu().numpy() for name, value in self._values.items()}
        return self._empty | found
