"""The class of interest: the forms in which users give it, and its index for each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from classlens.core.arguments import Takes, taken
from classlens.errors import ClasslensError
from classlens.models.classes import Classes

Class = Annotated[int | np.integer | str | Tensor, Takes("the index or name of a class")]
Target = Annotated[
    int | np.integer | str | Sequence[int | np.integer | str | Tensor] | Tensor | NDArray[np.integer],
    Takes("the index or name of a class, or one of them per image"),
]
"""A class index or name, one of them per image, or ``"predicted"``."""


def is_predicted(target: object) -> bool:
    return isinstance(target, str) and target == "predicted"


def class_indices(classes: Classes, target: Target, images: int, name: str = "target") -> Int[Tensor, " image"]:
    """Class index of each image, from an index or name for all images or one per image."""
    target = taken(name, target, Target)
    given = target.tolist() if isinstance(target, Tensor | np.ndarray) else target
    if not isinstance(given, Sequence) or isinstance(given, str):
        return torch.full((images,), classes.index(taken(name, given, Class)))
    indices = [classes.index(taken(name, category, Class)) for category in given]
    if len(indices) != images:
        raise ClasslensError(
            f"{len(indices)} {name} classes were given for {images} images: give one class, or one per image"
        )
    return torch.tensor(indices)
