"""Masks of the class on the token grid, resized and cropped as the image is."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from classlens.core.arrays import Array
from classlens.errors import ClasslensError
from classlens.models.geometry import Resized, transform_stages
from classlens.models.transforms import Transform

SourceIndex = Array
"""Row or column of the mask for each row or column of the model's input; -1 for padding."""


def token_mask(
    mask: Bool[np.ndarray, "height width"], transform: Transform | None, grid: tuple[int, int]
) -> Bool[np.ndarray, " token"]:
    """Whether the mask is True at each image token, in row-major order.

    The mask is resized and cropped as the image is, by nearest source index ``floor(i · H / h)`` as in OpenCV and
    torch, and then sampled at the token grid by the same rule. A transform with other steps than torchvision's
    ``Resize`` and ``CenterCrop`` receives the mask as a black and white picture, thresholded at one half.
    """
    if mask.dtype != bool or mask.ndim != 2:
        raise ClasslensError(
            f"a mask is an array of {mask.dtype} {list(mask.shape)}: expected bool [height, width], True where the "
            "image shows its class"
        )
    sides = _source_indices(mask.shape, transform)
    if sides is None:
        assert transform is not None
        mask = _transformed(mask, transform)
        sides = np.arange(mask.shape[0]), np.arange(mask.shape[1])
    rows, columns = (side[_nearest(len(side), count)] for side, count in zip(sides, grid, strict=True))
    values: Array = mask[rows[:, None], columns[None, :]] & (rows >= 0)[:, None] & (columns >= 0)[None, :]
    return values.reshape(-1)


def _nearest(size: int, count: int) -> Array:
    """Source indices of ``count`` equally spaced samples along a side of ``size``."""
    return np.arange(count) * size // count


def _source_indices(shape: tuple[int, int], transform: Transform | None) -> tuple[SourceIndex, SourceIndex] | None:
    """Mask rows and columns behind the model's input; None for a transform with other steps."""
    steps = transform_stages(shape, transform)
    if steps is None:
        return None
    sides = [np.arange(size) for size in shape]
    for step in steps:
        if isinstance(step, Resized):
            sides = [side[_nearest(len(side), size)] for side, size in zip(sides, step.size, strict=True)]
        else:
            sides = [_crop(*window) for window in zip(sides, step.start, step.size, strict=True)]
    return sides[0], sides[1]


def _crop(side: Array, start: int, size: int) -> Array:
    inside = side[max(start, 0) : start + size]
    return np.pad(inside, (max(-start, 0), size - len(inside) - max(-start, 0)), constant_values=-1)


def _transformed(mask: Bool[np.ndarray, "height width"], transform: Transform) -> Bool[np.ndarray, "rows columns"]:
    """The mask after the transform of its image."""
    black, gray, white = (_pixels(transform, picture) for picture in (np.zeros_like(mask), mask, np.ones_like(mask)))
    transformed: Bool[np.ndarray, "rows columns"] = ((gray - black).abs() > (white - gray).abs()).numpy()
    return transformed


def _pixels(transform: Transform, mask: Bool[np.ndarray, "height width"]) -> Tensor:
    return transform(Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB"))[0].double()
