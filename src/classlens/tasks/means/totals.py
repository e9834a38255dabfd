"""Sums of activations over all images so far, and their checkpoint in a file."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from classlens.core.arrays import Array
from classlens.engine.runner import BatchResult
from classlens.errors import ClasslensError, cause
from classlens.store.atomic import atomic_write
from classlens.store.provenance import require_same
from classlens.tasks.means.task import CLASS_SUMS, LABELS, SUMS

SAVE_SECONDS = 20.0
"""Least time between two checkpoints."""
SAVE_SHARE = 0.1
"""Largest share of the time that they take."""


class Totals:
    """Sums over the images so far, float64.

    Args:
        labels: the model's class of each image, -1 without one; None without sums by class.
    """

    def __init__(self, labels: Array | None) -> None:
        self._labels = labels
        classes = np.unique([] if labels is None else labels[labels >= 0]).astype(np.int64)
        self.classes: list[int] = classes.tolist()
        """Classes in the order of the sums by class."""
        self.class_images = torch.zeros(len(self.classes), dtype=torch.int64)
        self.sums: dict[str, Tensor] = {}
        self.images = self.next_image = 0
        self.problems: dict[int, str] = {}

    def add(self, result: BatchResult) -> None:
        """Add the sums of the next batch."""
        arrays = dict(result.arrays[SUMS])
        rows = torch.from_numpy(np.searchsorted(self.classes, arrays.pop(LABELS, [])).astype(np.int64))
        for key, array in arrays.items():
            values = torch.from_numpy(array)
            if key.startswith(CLASS_SUMS):
                if key not in self.sums:
                    self.sums[key] = values.new_zeros(len(self.classes), *values.shape[1:])
                self.sums[key][rows] += values
            else:
                self.sums[key] = self.sums[key].add_(values) if key in self.sums else values.clone()
        if self._labels is not None:
            labels = self._labels[result.images.start : result.images.stop][result.readable]
            found, counts = np.unique(labels[labels >= 0], return_counts=True)
            self.class_images[np.searchsorted(self.classes, found)] += torch.from_numpy(counts)
        self.images += int(result.readable.sum())
        self.next_image = result.images.stop
        self.problems |= result.problems


class Checkpoint:
    """The sums of an unfinished run of a model, in a file beside that of the means."""

    def __init__(self, path: Path, settings: Mapping[str, Any], model: str) -> None:
        self.path, self._settings, self._model = path, settings, model
        self._last, self._cost = time.perf_counter(), 0.0

    def restore(self, totals: Totals) -> None:
        """Continue from a stopped run, if any; raises ClasslensError for that of other images or settings."""
        if not self.path.exists():
            return
        try:
            record: dict[str, Any] = torch.load(self.path, weights_only=True)
            begun = json.loads(record.pop("settings"))
            fields = {name: record[name] for name in _FIELDS}
        except Exception as error:  # torch does not bound what a damaged file raises
            raise ClasslensError(f"{str(self.path)!r} cannot be resumed ({cause(error)}): remove it") from None
        require_same(str(self.path), begun if isinstance(begun, dict) else {}, self._settings)
        vars(totals).update(fields)

    def save_if_due(self, totals: Totals) -> None:
        """Save where enough time has passed."""
        if time.perf_counter() - self._last >= max(SAVE_SECONDS, self._cost / SAVE_SHARE):
            self.save(totals)

    def save(self, totals: Totals) -> None:
        """Save, completely or not at all; raises ClasslensError where the disk is full."""
        started = time.perf_counter()
        record = {name: getattr(totals, name) for name in _FIELDS}
        try:
            with atomic_write(self.path) as path:
                torch.save({**record, "settings": json.dumps({**self._settings, "model": self._model})}, path)
        except (OSError, RuntimeError) as error:  # torch raises the latter on a full disk, without the reason
            reason = cause(error) if isinstance(error, OSError) else "no space left on the device"
            raise ClasslensError(
                f"{str(self.path)!r} cannot be written ({reason}): make room or give another --out"
            ) from None
        self._last = time.perf_counter()
        self._cost = self._last - started


_FIELDS = ("sums", "class_images", "images", "next_image", "problems")
