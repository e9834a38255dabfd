"""Thumbnails of photos: small JPEG files of the part that the model sees."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

SIDE = 160
"""Pixels of the longer side."""
_QUALITY = 72
_SHARP = SIDE // 3
"""Photos with fewer pixels than this are enlarged pixel by pixel."""


def thumbnail(photo: Image.Image, frame: Sequence[float] | None = None) -> bytes:
    """A JPEG file of a photo, without any of its metadata.

    ``frame``: left, top, right and bottom border of the model's input in pixels of the upright photo; the thumbnail
    shows the part of the photo within. Without it, or with borders that are not known, it shows the whole photo.

    Examples:
        >>> Image.open(io.BytesIO(thumbnail(Image.new("RGB", (400, 300)), (50, 0, 350, 300)))).size
        (160, 160)
    """
    box = _box(photo.size, frame)
    width, height = box[2] - box[0], box[3] - box[1]
    scale = SIDE / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    resample = Image.Resampling.NEAREST if max(width, height) < _SHARP else Image.Resampling.LANCZOS
    rgb = photo.convert("RGB")
    # Halving large photos first makes the filter cheap; 3 keeps its error below what JPEG loses.
    small = rgb.resize(size, resample, box=box, reducing_gap=3.0 if scale < 1 else None)
    buffer = io.BytesIO()
    Image.frombytes("RGB", small.size, small.tobytes()).save(buffer, format="JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue()


def _box(size: tuple[int, int], frame: Sequence[float] | None) -> tuple[float, float, float, float]:
    """The part of the frame that lies within the photo."""
    whole = (0.0, 0.0, float(size[0]), float(size[1]))
    if frame is None or not np.isfinite(frame).all():
        return whole
    left, top = max(frame[0], 0.0), max(frame[1], 0.0)
    right, bottom = min(frame[2], whole[2]), min(frame[3], whole[3])
    return (left, top, right, bottom) if right > left and bottom > top else whole
