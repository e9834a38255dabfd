"""The class of interest: the forms in which users give it, and its index for each image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from classlens.errors import ClasslensError
from classlens.models.classes import Classes

Class = int | np.integer | str | Tensor
Target = Class | Sequence[Class] | NDArray[np.integer]
"""A class index or name, one of them per image, or ``"predicted"``."""


def is_predicted(target: object) -> bool:
    return isinstance(target, str) and target == "predicted"


def class_indices(classes: Classes, target: Target, images: int) -> Int[Tensor, " image"]:
    """Class index of each image, from an index or name for all images or one per image."""
    if isinstance(target, Tensor | np.ndarray):
        if target.ndim > 1:
            raise _no_class(f"an array of shape {list(target.shape)}")
        target = target.tolist()
    if isinstance(target, Sequence) and not isinstance(target, str):
        given = [_class_index(classes, category) for category in target]
        if len(given) != images:
            raise ClasslensError(
                f"{len(given)} target classes were given for {images} images: give one class, or one per image"
            )
        return torch.tensor(given)
    return torch.full((images,), _class_index(classes, target))


def _class_index(classes: Classes, category: object) -> int:
    # A bool is an int in Python and 3.7 would be cut to 3: neither is meant as a class.
    if isinstance(category, str) or (isinstance(category, int | np.integer) and not isinstance(category, bool)):
        return classes.index(category if isinstance(category, str) else int(category))
    if isinstance(category, Tensor) and category.ndim == 0:
        return _class_index(classes, category.item())
    raise _no_class(f"a {type(category).__name__} ({category!r})"[:80])


def _no_class(given: str) -> ClasslensError:
    return ClasslensError(f"target classes were given as {given}: give an index or a name, or one of them per image")
