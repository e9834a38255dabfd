"""Direct contributions of heads and MLPs to the class that a label is confused with, against the label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from classlens.core.arrays import Array
from classlens.explain.attribution import attribute
from classlens.forward.recorder import record
from classlens.models.view import ModelView
from classlens.store.schema import Variable
from classlens.tasks.ablation.task import LabeledTask, digest_name


@dataclass(frozen=True, eq=False)
class ContrastTask(LabeledTask):
    """Contributions to the logits of ``rivals[label]`` minus those to the logit of the label, by rival.

    Rivals of a label are classes that it is confused with; a label with fewer than others has fill values.
    """

    rivals: Mapping[int, tuple[int, ...]]

    @property
    def group(self) -> str:
        return digest_name("contrast", [[label, *rivals] for label, rivals in sorted(self.rivals.items())])

    @property
    def most(self) -> int:
        """Number of rivals of the label that has most."""
        return max(map(len, self.rivals.values()), default=0)

    def variables(self) -> dict[str, Variable]:
        float32 = np.dtype("float32")
        note = "contribution to the logit of the rival minus that to the logit of the label"
        return {
            "rival": Variable(("image", "rank"), np.dtype("int32"), -1, "class that the label is confused with"),
            "head_contrast": Variable(("image", "rank", "block", "head"), float32, np.nan, note),
            "mlp_contrast": Variable(("image", "rank", "block"), float32, np.nan, note),
        }

    def coords(self, view: ModelView) -> dict[str, Array]:
        blocks, heads = len(view.blocks), view.blocks[0].heads
        return {"rank": np.arange(self.most), "block": np.arange(blocks), "head": np.arange(heads)}

    def of_images(
        self, view: ModelView, pixels: Float[Tensor, "image channel height width"], label: Int[Tensor, " image"]
    ) -> Mapping[str, Array]:
        blank = self.schema(view, np.array([""], dtype=object)).blank(len(label))
        for rank in range(self.most):
            chosen = [(row, self.rivals.get(int(index), ())) for row, index in enumerate(label)]
            pairs = [(row, rivals[rank]) for row, rivals in chosen if rank < len(rivals)]
            if not pairs:
                continue
            rows, rivals = [row for row, _ in pairs], torch.tensor([rival for _, rival in pairs])
            recording = record(view, pixels[rows], batch_size=len(rows))
            hot = F.one_hot(rivals, view.num_classes) - F.one_hot(label[rows], view.num_classes)
            parts = attribute(recording, hot.to(view.device, recording.dtype))
            blank["rival"][rows, rank] = rivals.numpy()
            blank["head_contrast"][rows, rank] = (parts.attention.sum(dim=-1) + parts.replaced).numpy()
            blank["mlp_contrast"][rows, rank] = parts.mlp.numpy()
        return {name: values for name, values in blank.items() if name != "label"}
