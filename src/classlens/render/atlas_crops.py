"""Crops of photos around image tokens: small JPEG files in which the token is outlined."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int
from PIL import Image, ImageDraw

from classlens.data.dataset import Dataset
from classlens.errors import ClasslensError
from classlens.render.atlas_record.tokens import TokenPlace

SIDE = 160
"""Pixels of the longer side of a crop."""
TOKENS = 5
"""Tokens that a crop shows in either direction."""
_LARGEST = 40_000
_QUALITY = 82
_SHARP = SIDE // 2
"""Regions with fewer pixels than this are enlarged pixel by pixel."""


@dataclass
class Crops:
    """JPEG files by token.

    ``missing``: images whose photo is gone, unreadable or another one. ``unplaced``: images whose transform leaves open
    which part of the photo the model's input is; their crops show the whole photo without an outline.
    """

    files: dict[TokenPlace, bytes] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unplaced: list[str] = field(default_factory=list)


def cut_crops(
    dataset: Dataset,
    places: Mapping[TokenPlace, str],
    frames: Float[np.ndarray, "image 4"],
    grid: tuple[int, int],
    *,
    content: Int[np.ndarray, " image"] | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Crops:
    """Cut a crop for every place; each photo is opened once.

    ``places`` gives the name of the image of each place, ``frames`` the borders of the model's input in pixels of the
    upright photo, ``grid`` the rows and columns of tokens, ``content`` numbers that tell the measured photos from
    others of their names, 0 where none is known. A token outside of the photo has no crop.
    """
    positions = {name: index for index, name in enumerate(dataset.names)}
    by_image: dict[str, list[TokenPlace]] = {}
    for place, name in places.items():
        by_image.setdefault(name, []).append(place)
    crops = Crops()
    for done, (name, tokens) in enumerate(by_image.items()):
        report(done, len(by_image))
        photo = _photo(dataset, positions.get(name), 0 if content is None else int(content[tokens[0].image]))
        if photo is None:
            crops.missing.append(name)
            continue
        frame = frames[tokens[0].image]
        if not np.isfinite(frame).all():
            crops.unplaced.append(name)
            crops.files |= dict.fromkeys(tokens, _jpeg(_thumbnail(photo)))
            continue
        for place in tokens:
            crop = token_crop(photo, frame.tolist(), grid, place.row, place.column)
            if crop is not None:
                crops.files[place] = _jpeg(crop)
    return crops


def _photo(dataset: Dataset, index: int | None, content: int) -> Image.Image | None:
    """The photo that was measured; None where it is gone, unreadable or another one."""
    if index is None or (content and int(dataset.content([index])[0]) != content):
        return None
    try:
        return dataset.picture(index)
    except ClasslensError:
        return None


def token_crop(
    photo: Image.Image, frame: Iterable[float], grid: tuple[int, int], row: int, column: int
) -> Image.Image | None:
    """The part of a photo around a token, which is outlined; None for a token outside of the photo.

    The part is 5 × 5 tokens; at a border of the photo it is moved inward, and the token is no longer its center.
    """
    left, top, right, bottom = frame
    width, height = (right - left) / grid[1], (bottom - top) / grid[0]
    x, y = left + column * width, top + row * height
    if not (x < photo.width and x + width > 0 and y < photo.height and y + height > 0):
        return None
    x0, x1 = _span(x, width, photo.width)
    y0, y1 = _span(y, height, photo.height)
    scale = SIDE / max(x1 - x0, y1 - y0)
    size = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
    small = max(x1 - x0, y1 - y0)
    resample = (
        Image.Resampling.NEAREST
        if small < _SHARP
        else Image.Resampling.BICUBIC
        if small < SIDE
        else Image.Resampling.LANCZOS
    )
    crop = photo.convert("RGB").resize(size, resample, box=(x0, y0, x1, y1))
    corners = ((x - x0) * scale, (y - y0) * scale, (x + width - x0) * scale, (y + height - y0) * scale)
    _outline(crop, tuple(map(round, corners)))
    return crop


def _span(start: float, length: float, limit: int) -> tuple[float, float]:
    """The ends of some tokens around the one that starts at ``start``, within the photo."""
    whole = length * TOKENS
    first = start - length * (TOKENS // 2)
    first = min(max(first, 0.0), max(limit - whole, 0.0))
    return first, min(first + whole, float(limit))


def _outline(crop: Image.Image, box: tuple[int, ...]) -> None:
    """A white line between two black ones, just outside of the box, or within the crop where that ends."""
    draw = ImageDraw.Draw(crop)
    for distance, color in ((4, "black"), (3, "white"), (2, "white"), (1, "black")):
        left, top = max(box[0] - distance, 4 - distance), max(box[1] - distance, 4 - distance)
        right = min(box[2] - 1 + distance, crop.width - 1 - (4 - distance))
        bottom = min(box[3] - 1 + distance, crop.height - 1 - (4 - distance))
        if left < right and top < bottom:
            draw.rectangle((left, top, right, bottom), outline=color)


def _thumbnail(photo: Image.Image) -> Image.Image:
    scale = SIDE / max(photo.size)
    size = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
    return photo.convert("RGB").resize(size, Image.Resampling.NEAREST if scale > 2 else Image.Resampling.LANCZOS)


def _jpeg(picture: Image.Image) -> bytes:
    """A JPEG file of at most 40,000 bytes without any metadata of the photo."""
    bare = Image.frombytes("RGB", picture.size, picture.tobytes())
    quality = _QUALITY
    while True:
        buffer = io.BytesIO()
        bare.save(buffer, format="JPEG", quality=quality, optimize=True)
        if buffer.tell() <= _LARGEST or quality <= 10:
            return buffer.getvalue()
        quality = math.floor(quality * 0.7)
