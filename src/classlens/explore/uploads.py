"""Photos that were dropped on a page; they live in memory, until the server stops."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from functools import cache
from threading import Lock
from typing import NamedTuple

from PIL import Image

from classlens.errors import ClasslensError
from classlens.models.images import open_bytes

LARGEST = 20 * 2**20
"""Bytes of the largest file that is taken."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""Formats that are read. Of others, Pillow hands some to another program: PostScript to Ghostscript."""
_TOTAL = 200 * 2**20
_COUNT = 200
_LONGEST = 20
"""Sides of a photo that its other side may have: a resize of the shorter one enlarges the longer one as much."""


class Upload(NamedTuple):
    """A photo as its file was sent."""

    name: str
    data: bytes

    def picture(self) -> Image.Image:
        return open_bytes(self.data, self.name, _formats()).image


class Uploads:
    """Dropped photos by identifier; the oldest ones make room for new ones."""

    def __init__(self, *, count: int = _COUNT, total: int = _TOTAL) -> None:
        self._count, self._total = count, total
        self._photos: OrderedDict[str, Upload] = OrderedDict()
        self._lock = Lock()

    def add(self, name: str, data: bytes, smallest: tuple[int, int] = (1, 1)) -> str:
        """Keep a photo and return its identifier; raises ClasslensError for a file that is no photo of a usual shape.

        ``smallest``: minimum height and width in pixels, those of the grid of the model.
        """
        upload = Upload(name, data)
        _check_size(upload.picture().size, name, smallest)
        identifier = secrets.token_hex(8)
        with self._lock:
            self._photos[identifier] = upload
            while len(self._photos) > self._count or self._bytes() > self._total:
                self._photos.popitem(last=False)
        return identifier

    def _bytes(self) -> int:
        return sum(len(photo.data) for photo in self._photos.values())

    def get(self, identifier: str) -> Upload | None:
        with self._lock:
            return self._photos.get(identifier)


@cache
def _formats() -> tuple[str, ...]:
    """Formats that the installed Pillow knows."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _check_size(size: tuple[int, int], name: str, smallest: tuple[int, int]) -> None:
    width, height = size
    if height < smallest[0] or width < smallest[1]:
        raise ClasslensError(
            f"photo {name!r} is {height}×{width} pixels, fewer than the {smallest[0]}×{smallest[1]} tokens of the "
            "model's grid (height × width): open a larger one"
        )
    if max(size) > _LONGEST * min(size):
        raise ClasslensError(
            f"photo {name!r} is {height}×{width} pixels, and one side more than {_LONGEST} times the other: crop it"
        )
