"""Small models and images as the metrics see them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

import classlens
from classlens import ClasslensError
from classlens.lens.lens import Lens
from classlens.tasks.evaluation.cascade import Cascade
from classlens.tasks.evaluation.image_batch import EvaluationSettings, ImageBatch
from tests import zoo


def lens_of(name: str = "cls_not_square", seed: int = 0, dtype: torch.dtype = torch.float64) -> Lens:
    return classlens.load(zoo.build(name, dtype, seed=seed))


def seen(lens: Lens, pixels: Tensor, target: Tensor, **given: Any) -> ImageBatch:
    """A batch; ``settings``, ``shows``, ``first`` and ``cascade`` where a test needs them."""

    def none() -> Cascade:
        raise ClasslensError("no twin was made for this test")

    return ImageBatch(
        lens=lens,
        settings=given.get("settings", EvaluationSettings()),
        pixels=pixels,
        target=target,
        shows_class=given.get("shows", np.zeros((len(pixels), 1), dtype=np.int8)),
        first=given.get("first", 0),
        cascade=given.get("cascade", none),
    )
