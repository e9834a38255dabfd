"""Photos that were dropped on a page; they live in memory, until the server stops."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from threading import Lock
from typing import NamedTuple

from PIL import Image

from classlens.models.images import open_bytes

LARGEST = 20 * 2**20
"""Bytes of the largest file that is taken."""
_TOTAL = 200 * 2**20
_COUNT = 200


class Upload(NamedTuple):
    """A photo as its file was sent."""

    name: str
    data: bytes

    def picture(self) -> Image.Image:
        return open_bytes(self.data, self.name).image


class Uploads:
    """Dropped photos by identifier; the oldest ones make room for new ones."""

    def __init__(self) -> None:
        self._photos: OrderedDict[str, Upload] = OrderedDict()
        self._lock = Lock()

    def add(self, name: str, data: bytes) -> str:
        """Keep a photo and return its identifier; raises ClasslensError for a file that is no image."""
        upload = Upload(name, data)
        upload.picture()
        identifier = secrets.token_hex(8)
        with self._lock:
            self._photos[identifier] = upload
            while len(self._photos) > _COUNT or sum(len(photo.data) for photo in self._photos.values()) > _TOTAL:
                self._photos.popitem(last=False)
        return identifier

    def get(self, identifier: str) -> Upload | None:
        with self._lock:
            return self._photos.get(identifier)
