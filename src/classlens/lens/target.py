"""The class of interest: what a user may give for it, and the index of each image that it becomes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from classlens.errors import ClasslensError
from classlens.models.classes import Classes

Target = int | str | Sequence[int | str] | np.ndarray[tuple[int], np.dtype[np.integer]] | Tensor


def indices(classes: Classes, target: Target, images: int) -> Tensor:
    """Class indices, one an image, from an index or name for all images or one for each."""
    if isinstance(target, Tensor | np.ndarray):
        target = target.tolist()
    if isinstance(target, int | str | np.integer):
        return torch.full((images,), classes.index(target))
    found = [classes.index(one) for one in target]
    if len(found) != images:
        raise ClasslensError(
            f"{len(found)} target classes were given for {images} images: give one class, or one an image"
        )
    return torch.tensor(found)
