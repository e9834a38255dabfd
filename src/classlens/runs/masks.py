"""Where the tokens of an image show its class: the mask, through the image's own resize and crop, on the token grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms._presets import ImageClassification

from classlens.models.transforms import Transform
from classlens.runs.variables import Array

# Steps that leave every pixel where it is, by the name of their class.
_STILL = frozenset(
    [
        *("ToTensor", "PILToTensor", "MaybeToTensor", "MaybePILToTensor", "ToNumpy", "ToImage"),
        *("ToDtype", "ConvertImageDtype", "Normalize", "_convert_to_rgb"),  # the last is OpenCLIP's
    ]
)
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
    sides = [np.arange(size) for size in shape]
    for step in [] if transform is None else _steps(transform):
        if getattr(step, "__name__", type(step).__name__) in _STILL:
            continue
        change = _CHANGES.get(type(step))
        if change is None:
            return None
        sides = change(step, sides)
    return sides[0], sides[1]


def _steps(transform: Any) -> list[Any]:
    """The steps of a chain, also of chains within it."""
    if type(transform) is ImageClassification:
        return [transforms.Resize(transform.resize_size), transforms.CenterCrop(transform.crop_size)]
    if isinstance(transform, transforms.Compose):
        return [each for step in transform.transforms for each in _steps(step)]
    return [transform]


def _resized(step: Any, sides: list[Array]) -> list[Array]:
    height, width = (len(side) for side in sides)
    size = [step.size] if isinstance(step.size, int) else list(step.size)
    if len(size) == 1:  # the shorter side, the other in proportion, as torchvision counts it
        short = min(height, width)
        long = int(size[0] * max(height, width) / short)
        if step.max_size is not None and long > step.max_size:
            size[0], long = int(step.max_size * size[0] / long), step.max_size
        size = [long, size[0]] if height > width else [size[0], long]
    return [side[_nearest(len(side), count)] for side, count in zip(sides, size, strict=True)]


def _cropped(step: Any, sides: list[Array]) -> list[Array]:
    return [_crop(side, size) for side, size in zip(sides, step.size, strict=True)]


def _crop(side: Array, size: int) -> Array:
    if len(side) < size:
        before = (size - len(side)) // 2
        side = np.pad(side, (before, size - len(side) - before), constant_values=-1)
    start = round((len(side) - size) / 2.0)
    return side[start : start + size]


_CHANGES: dict[type, Callable[[Any, list[Array]], list[Array]]] = {
    transforms.Resize: _resized,
    transforms.CenterCrop: _cropped,
}


def _through(mask: Bool[np.ndarray, "height width"], transform: Transform) -> Bool[np.ndarray, "height width"]:
    """The mask as the transform would show it."""
    black, own, white = (_pixels(transform, picture) for picture in (np.zeros_like(mask), mask, np.ones_like(mask)))
    seen: Bool[np.ndarray, "height width"] = ((own - black).abs() > (white - own).abs()).numpy()
    return seen


def _pixels(transform: Transform, mask: Bool[np.ndarray, "height width"]) -> Tensor:
    return transform(Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB"))[0].double()
