"""Batches of a small model, and importances with given maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import classlens
from classlens.lens.lens import Lens
from classlens.lens.trace import Trace
from classlens.tasks.evaluation.cascade import Cascade
from classlens.tasks.evaluation.image_batch import EvaluationSettings, ImageBatch
from classlens.tasks.evaluation.importance import MethodImportance, parse_methods
from tests import zoo


def lens_of(name: str = "cls_not_square", seed: int = 0, dtype: torch.dtype = torch.float64) -> Lens:
    return classlens.load(zoo.build(name, dtype, seed=seed))


def method_of(text: str) -> MethodImportance:
    (importance,) = parse_methods([text])
    assert isinstance(importance, MethodImportance)
    return importance


def no_cascade() -> Cascade:
    raise AssertionError("this test needs no random twin")


def batch_of(
    lens: Lens,
    pixels: Tensor,
    target: Tensor,
    *,
    settings: EvaluationSettings | None = None,
    shows_class: Any = None,
    first: int = 0,
    cascade: Callable[[], Cascade] = no_cascade,
) -> ImageBatch:
    return ImageBatch(
        lens=lens,
        settings=settings or EvaluationSettings(),
        pixels=pixels,
        target=target,
        shows_class=np.zeros((len(pixels), 1), dtype=np.int8) if shows_class is None else shows_class,
        first=first,
        cascade=cascade,
    )


@dataclass
class GivenImportance:
    """Maps of a test's own, the same for every class."""

    values: Tensor
    text: str = "given"
    drawn: bool = False
    live: bool = True
    complete: bool = False
    digest: str | None = None

    def native_maps(self, batch: ImageBatch) -> None:
        return None

    def maps(self, batch: ImageBatch) -> Tensor:
        return self.values

    def explain(self, trace: Trace, target: Tensor) -> Tensor:
        return self.values
