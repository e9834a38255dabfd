"""Direct contributions of heads and MLPs to the class that a label is confused with, against the label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    Rivals of a label are classes that it is confused with; a label with fewer than others has fill values. The name of
    the group depends on ``images``, the names of the images that choose.
    """

    rivals: Mapping[int, tuple[int, ...]]
    images: Sequence[str]

    @property
    def group(self) -> str:
        rivals = [[label, *rivals] for label, rivals in sorted(self.rivals.items())]
        return digest_name("contrast", [rivals, list(self.images)])

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
        recording = record(view, pixels, batch_size=len(pixels))
        for rank in range(self.most):
            rivals = [self.rivals.get(int(index), ()) for index in label]
            rows = [row for row, of_label in enumerate(rivals) if rank < len(of_label)]
            if not rows:
                continue
            # An image without a rival of this rank is contrasted with its label, which is 0, and left out.
            against = label.clone()
            against[rows] = torch.tensor([rivals[row][rank] for row in rows])
            hot = F.one_hot(against, view.num_classes) - F.one_hot(label, view.num_classes)
            parts = attribute(recording, hot.to(view.device, recording.dtype))
            blank["rival"][rows, rank] = against[rows].numpy()
            blank["head_contrast"][rows, rank] = (parts.attention.sum(dim=-1) + parts.replaced)[rows].numpy()
            blank["mlp_contrast"][rows, rank] = parts.mlp[rows].numpy()
        return {name: values for name, values in blank.items() if name != "label"}
