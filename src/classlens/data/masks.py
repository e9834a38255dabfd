"""Where the tokens of an image show its class: the mask, through the image's own resize and crop, on the token grid."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from classlens.models.geometry import Resized, transform_stages
from classlens.models.transforms import Transform
from classlens.store.schema import Array

Places = Array
"""The row (or column) of the original mask of each row (or column) of the image that the model sees; -1 for padding."""


def token_mask(
    mask: Bool[np.ndarray, "height width"], transform: Transform | None, grid: tuple[int, int]
) -> Bool[np.ndarray, " token"]:
    """Whether each image token, in row-major order, shows what ``mask`` shows.

    The mask goes through the same resize and crop as the image, nearest by source index ``floor(i · H / h)`` as OpenCV
    and torch do it, and then to the token grid by the same rule (design, section 8). A transform that is not made of
    torchvision's ``Resize`` and ``CenterCrop`` is given the mask as a black and white picture, halves are rounded.
    """
    places = _places(mask.shape, transform)
    if places is None:
        assert transform is not None
        seen = _through(mask, transform)
        rows, columns = np.arange(seen.shape[0]), np.arange(seen.shape[1])
        mask = seen
    else:
        rows, columns = places
    rows, columns = (side[_nearest(len(side), count)] for side, count in zip((rows, columns), grid, strict=True))
    found = mask[rows[:, None], columns[None, :]] & (rows >= 0)[:, None] & (columns >= 0)[None, :]
    return found.reshape(-1)


def _nearest(size: int, count: int) -> Array:
    """The source index of each of ``count`` places along a side of ``size``."""
    return np.arange(count) * size // count


def _places(shape: tuple[int, int], transform: Transform | None) -> tuple[Places, Places] | None:
    """Where each row and column that the model sees comes from; None for a transform with other steps."""
    found = transform_stages(shape, transform)
    if found is None:
        return None
    sides = [np.arange(size) for size in shape]
    for stage in found:
        if isinstance(stage, Resized):
            sides = [side[_nearest(len(side), size)] for side, size in zip(sides, stage.size, strict=True)]
        else:
            sides = [_crop(*each) for each in zip(sides, stage.start, stage.size, strict=True)]
    return sides[0], sides[1]


def _crop(side: Array, start: int, size: int) -> Array:
    inside = side[max(start, 0) : start + size]
    return np.pad(inside, (max(-start, 0), size - len(inside) - max(-start, 0)), constant_values=-1)


def _through(mask: Bool[np.ndarray, "height width"], transform: Transform) -> Bool[np.ndarray, "height width"]:
    """The mask as the transform would show it."""
    black, own, white = (_pixels(transform, picture) for picture in (np.zeros_like(mask), mask, np.ones_like(mask)))
    seen: Bool[np.ndarray, "height width"] = ((own - black).abs() > (white - own).abs()).numpy()
    return seen


def _pixels(transform: Transform, mask: Bool[np.ndarray, "height width"]) -> Tensor:
    return transform(Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB"))[0].double()
