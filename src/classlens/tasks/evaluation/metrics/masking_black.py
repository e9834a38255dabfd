"""Pixel masking with black."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from classlens.tasks.evaluation.image_batch import ImageBatch
from classlens.tasks.evaluation.metrics.masking import Masking


class BlackMasking(Masking):
    """As ``masking``, with masked pixels black: 0 before the model's normalization.

    Source: the published code of Chefer, Gur and Wolf, *Transformer Interpretability Beyond Attention Visualization*,
    CVPR 2021. Black is further from natural images than the mean color.
    """

    label = "Masking with black"
    about = "as masking, with black pixels"
    measures = {"negative_auc": "black, least first, AUC", "positive_auc": "black, most first, AUC"}
    curves = {
        "negative": "black pixels, least important first",
        "positive": "black pixels, most important first",
    }

    def paint(self, batch: ImageBatch) -> Float[Tensor, "image channel height width"]:
        mean, std = batch.lens.preprocessing.mean, batch.lens.preprocessing.std
        if mean is None or std is None:
            return torch.zeros_like(batch.pixels)
        black = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        return black.to(batch.pixels)[:, None, None].expand_as(batch.pixels)


METRIC = BlackMasking()
