"""Thumbnails: the part of the photo, its size, and what they leave out."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from classlens.render.thumbnails import thumbnail


def opened(photo: Image.Image, frame: tuple[float, ...] | None = None) -> Image.Image:
    return Image.open(io.BytesIO(thumbnail(photo, frame)))


def quarters() -> Image.Image:
    """Red, green, blue and white quarters of 400 × 300 pixels."""
    pixels = np.zeros((300, 400, 3), dtype=np.uint8)
    pixels[:150, :200] = (255, 0, 0)
    pixels[:150, 200:] = (0, 255, 0)
    pixels[150:, :200] = (0, 0, 255)
    pixels[150:, 200:] = 255
    return Image.fromarray(pixels)


def test_shows_the_part_within_the_frame() -> None:
    shown = opened(quarters(), (200, 0, 350, 150))
    assert shown.size == (160, 160)
    np.testing.assert_allclose(np.asarray(shown).reshape(-1, 3).mean(axis=0), [0, 255, 0], atol=3)
    middle = opened(quarters(), (50.0, 0.0, 350.0, 300.0))
    for row, column, color in ((20, 20, (255, 0, 0)), (20, 140, (0, 255, 0)), (140, 20, (0, 0, 255))):
        np.testing.assert_allclose(np.asarray(middle)[row, column], color, atol=6)


@pytest.mark.parametrize("frame", [None, (float("nan"),) * 4, (500.0, 500.0, 600.0, 600.0)])
def test_shows_the_whole_photo_without_a_frame(frame: tuple[float, ...] | None) -> None:
    assert opened(quarters(), frame).size == (160, 120)


def test_a_frame_beyond_the_photo_shows_what_there_is() -> None:
    assert opened(quarters(), (-100, -50, 500, 350)).size == (160, 120)


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (5000, 3), (32, 32), (3000, 2000)])
def test_any_photo_is_a_small_file_of_its_proportions(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = thumbnail(Image.fromarray(noise))
    shown = Image.open(io.BytesIO(file))
    assert max(shown.size) == 160
    assert len(file) < 25_000
    wanted = 160 * min(size) / max(size)
    assert abs(min(shown.size) - wanted) <= 1


def test_metadata_stays_behind() -> None:
    photo = quarters()
    photo.info["comment"] = b"secret place"
    photo.info["exif"] = b"Exif\0\0secret place"
    text = PngInfo()
    text.add_text("where", "secret place")
    buffer = io.BytesIO()
    photo.save(buffer, format="PNG", pnginfo=text)
    assert b"secret" not in thumbnail(Image.open(buffer))
    assert b"secret" not in thumbnail(photo)


def test_other_modes_are_drawn() -> None:
    for mode in ("L", "P", "RGBA", "CMYK", "1"):
        assert opened(Image.new(mode, (40, 30))).mode == "RGB"
