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
        if target.ndim > 1:
            raise _not_classes(f"an array of shape {list(target.shape)}")
        target = target.tolist()
    if isinstance(target, Sequence) and not isinstance(target, str):
        found = [_index(classes, one) for one in target]
        if len(found) != images:
            raise ClasslensError(
                f"{len(found)} target classes were given for {images} images: give one class, or one an image"
            )
        return torch.tensor(found)
    return torch.full((images,), _index(classes, target))


def _index(classes: Classes, target: object) -> int:
    # A bool is an int to Python and 3.7 would be cut to 3: neither is meant as a class.
    if isinstance(target, str) or (isinstance(target, int | np.integer) and not isinstance(target, bool)):
        return classes.index(target if isinstance(target, str) else int(target))
    if isinstance(target, Tensor) and target.ndim == 0:
        return _index(classes, target.item())
    raise _not_classes(f"a {type(target).__name__} ({target!r})"[:80])


def _not_classes(what: str) -> ClasslensError:
    return ClasslensError(
        f"target classes were given as {what}: give an index or a name, or one of them for each image"
    )
