"""The task of means: sums of activations over the images of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from classlens.core.arrays import Array
from classlens.data.loading import Batch
from classlens.engine.task import Job
from classlens.errors import ClasslensError
from classlens.forward.means import MEAN_POINTS, mean_key
from classlens.forward.streaming import stream
from classlens.models.view import ModelView

SUMS = "sums"
"""The one group of the task: sums over images, float64, ``[token, channel]`` by point and block."""
CLASS_SUMS = "by_class."
"""Prefix of the names of sums by class: ``[class, token kind, channel]``, the classes being those of ``LABELS``;
image tokens are summed."""
LABELS = "labels"


@dataclass(frozen=True, eq=False)
class MeansTask:
    """Sums of each batch, handed over and not stored."""

    by_class: bool
    groups: tuple[str, ...] = (SUMS,)
    mask_grid: None = None
    ignore_unknown: bool = False

    def needs_masks(self, group: str) -> bool:
        return False

    def measurer(self, job: Job) -> MeansMeasurer:
        return MeansMeasurer(job.source.lens.view, job.labels if self.by_class else None)


class MeansMeasurer:
    """Runs the model and sums what passes over the readable images of a batch."""

    def __init__(self, view: ModelView, labels: Array | None) -> None:
        self._view, self._labels = view, labels

    def measure(self, batch: Batch, groups: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Array]]]:
        """The sums of a batch; raises ClasslensError for logits that are not finite."""
        readable = torch.from_numpy(batch.readable)
        sums: dict[str, Array] = {}
        one_hot: Tensor | None = None
        if self._labels is not None:
            labels = self._labels[batch.images.start : batch.images.stop][batch.readable]
            sums[LABELS] = np.unique(labels[labels >= 0])
            one_hot = torch.from_numpy((sums[LABELS][:, None] == labels).astype(np.float64))

        def receive(point: str, block: int, x: Tensor) -> None:
            x = x.cpu() if x.device.type == "mps" else x  # which has no float64
            x = x if bool(readable.all()) else x[readable.to(x.device)]
            key = mean_key(point, block)
            sums[key] = x.sum(dim=0, dtype=torch.float64).cpu().numpy()
            if one_hot is not None:
                sums[f"{CLASS_SUMS}{key}"] = _by_class(x, len(self._view.prefix), one_hot.to(x.device)).cpu().numpy()

        logits = stream(self._view, batch.pixels, MEAN_POINTS, receive)
        if not bool(torch.isfinite(logits).all()):
            raise ClasslensError(
                f"images {batch.images[0]} to {batch.images[-1]} give logits that are not finite: check the images and "
                "the checkpoint for NaN"
            )
        yield SUMS, sums


def _by_class(
    x: Float[Tensor, "image token channel"], prefix: int, one_hot: Float[Tensor, "label image"]
) -> Float[Tensor, "label kind channel"]:
    """Sums over the images of each class, of prefix tokens and of all image tokens together."""
    image_tokens = x[:, prefix:].sum(dim=1, keepdim=True, dtype=torch.float64)
    kinds = torch.cat([x[:, :prefix].double(), image_tokens], dim=1)
    # A product, not an index_add: on a GPU that would add in any order.
    return torch.einsum("li,ikc->lkc", one_hot, kinds)
