"""Small models and images as the metrics see them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

import classlens
from classlens import ClasslensError
from classlens.faithful.cascade import Cascade
from classlens.faithful.seen import Seen, Settings
from classlens.lens.lens import Lens
from tests import zoo


def lens_of(name: str = "cls_not_square", seed: int = 0, dtype: torch.dtype = torch.float64) -> Lens:
    return classlens.load(zoo.build(name, dtype, seed=seed))


def seen(lens: Lens, pixels: Tensor, target: Tensor, **given: Any) -> Seen:
    """A batch; ``settings``, ``shows``, ``first`` and ``cascade`` where a test needs them."""

    def none() -> Cascade:
        raise ClasslensError("no twin was made for this test")

    return Seen(
        lens=lens,
        settings=given.get("settings", Settings()),
        pixels=pixels,
        target=target,
        shows=given.get("shows", np.zeros((len(pixels), 1), dtype=np.int8)),
        first=given.get("first", 0),
        cascade=given.get("cascade", none),
    )
