"""Crops of photos around tokens, against pictures that are drawn by hand."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from classlens.core.arrays import Array
from classlens.data.dataset import ClassName, Dataset, ImageFiles
from classlens.render.atlas_crops import cut_crops, token_crop
from classlens.render.atlas_record.tokens import TokenPlace

GRID = (6, 8)


def color(row: int, column: int) -> tuple[int, int, int]:
    return 40 + 30 * row, 20 + 25 * column, 90


def drawn(frame: Sequence[float], size: tuple[int, int]) -> Image.Image:
    """A gray photo in which every token of the frame has a color of its own."""
    photo = Image.new("RGB", size, (128, 128, 128))
    draw = ImageDraw.Draw(photo)
    left, top, right, bottom = frame
    width, height = (right - left) / GRID[1], (bottom - top) / GRID[0]
    for row in range(GRID[0]):
        for column in range(GRID[1]):
            x, y = left + column * width, top + row * height
            draw.rectangle((x, y, x + width - 1, y + height - 1), fill=color(row, column))
    return photo


def data_set(folder: Path, photos: Sequence[Image.Image], **options: Any) -> Dataset:
    names = [f"{number}.png" for number in range(len(photos))]
    for name, photo in zip(names, photos, strict=True):
        photo.save(folder / name, **options)
    return Dataset.whole("folder:x", None, names, [0] * len(names), [ClassName("a")], ImageFiles(folder, tuple(names)))


@pytest.mark.parametrize(("row", "column"), [(2, 3), (3, 4), (0, 0), (5, 7), (0, 5), (5, 2)])
@pytest.mark.parametrize(
    ("frame", "size"),
    [((0, 0, 320, 240), (320, 240)), ((40, 20, 680, 500), (720, 520)), ((0, 0, 64, 48), (64, 48))],
    ids=["whole photo", "center crop of a larger photo", "tokens of 8 pixels"],
)
def test_the_outlined_part_is_the_token(frame: tuple[float, ...], size: tuple[int, int], row: int, column: int) -> None:
    crop = token_crop(drawn(frame, size), frame, GRID, row, column)
    assert crop is not None
    assert max(crop.size) == 160
    pixels = np.asarray(crop).astype(int)
    # The outline: white pixels of a photo that has none.
    rows, columns = np.nonzero((pixels == 255).all(-1))
    inner = pixels[rows.min() + 3 : rows.max() - 2, columns.min() + 3 : columns.max() - 2]
    assert min(inner.shape[:2]) >= 24, "about a fifth of the crop"
    # Resampling mixes the borders of tokens, so that the middle of the token alone has its color alone.
    middle = inner[4:-4, 4:-4].reshape(-1, 3)
    np.testing.assert_allclose(middle, np.broadcast_to(color(row, column), middle.shape), atol=1)
    # The outline is drawn outside of the token, and moved inward at a border of the photo alone.
    if 2 <= row <= 3 and 3 <= column <= 4:
        assert inner.shape[:2] == (32, 32)
        assert (rows.min() + 3, columns.min() + 3) == (64, 64), "the third of five tokens of 32 pixels"
        assert tuple(pixels[80, 80 - 32]) == pytest.approx(color(row, column - 1), abs=1)
        assert tuple(pixels[80 + 32, 80]) == pytest.approx(color(row + 1, column), abs=1)
        outside, border = pixels[80, 64 - 4 : 64], [0, 255, 255, 0]
        assert outside.tolist() == [[value] * 3 for value in border], "white between black, on any background"


def test_a_crop_ends_with_the_photo() -> None:
    """The model's input reaches beyond the photo, as where a crop pads it."""
    photo = drawn((0, 0, 320, 240), (200, 240))
    inside = token_crop(photo, (0, 0, 320, 240), GRID, 2, 4)
    assert inside is not None
    assert inside.size == (160, 160), "moved inward"
    assert token_crop(photo, (0, 0, 320, 240), GRID, 2, 5) is None, "begins where the photo ends"
    narrow = token_crop(photo.crop((0, 0, 60, 240)), (0, 0, 320, 240), GRID, 2, 0)
    assert narrow is not None
    assert narrow.size == (48, 160), "60 × 200 pixels"


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each photo is opened once; files are small, and hold nothing of the photo but pixels."""
    exif = Image.Exif()
    exif[0x010E] = "secret place"
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8))
    dataset = data_set(tmp_path, [drawn((0, 0, 640, 480), (640, 480)), noise], exif=exif, icc_profile=b"secret profile")
    opened: list[int] = []
    monkeypatch.setattr(ImageFiles, "picture", counted(ImageFiles.picture, opened))
    places = {TokenPlace(i, row, column): f"{i}.png" for i in range(2) for row in (1, 3) for column in (0, 4)}
    reports: list[tuple[int, int]] = []
    crops = cut_crops(
        dataset, places, np.tile([0.0, 0, 640, 480], (2, 1)), GRID, report=lambda *counts: reports.append(counts)
    )
    assert opened == [0, 1]
    assert reports == [(0, 2), (1, 2)]
    assert set(crops.files) == set(places)
    assert (crops.missing, crops.unplaced) == ([], [])
    for place, file in crops.files.items():
        assert len(file) <= 40_000
        assert b"secret" not in file
        picture = Image.open(io.BytesIO(file))
        assert (picture.format, picture.size) == ("JPEG", (160, 160))
        assert {*picture.info} <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
        if place.image == 0:
            x, y = (80 if place.column else 16), 80
            y = y if place.row == 3 else 48
            assert picture.getpixel((x, y)) == pytest.approx(color(place.row, place.column), abs=12), "JPEG is lossy"


def counted(picture: Callable[..., Image.Image], opened: list[int]) -> Callable[..., Image.Image]:
    def read(source: ImageFiles, position: int) -> Image.Image:
        opened.append(position)
        photo = picture(source, position)
        photo.info |= {"icc_profile": b"secret profile", "comment": b"secret comment"}
        return photo

    return read


def test_photos_that_are_missing_changed_or_not_placed(tmp_path: Path) -> None:
    photo = drawn((0, 0, 320, 240), (320, 240))
    dataset = data_set(tmp_path, [photo] * 5)
    measured = dataset.content(range(5))
    os.remove(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes(b"no image")
    Image.new("RGB", (320, 240), "red").save(tmp_path / "3.png")
    frames = np.tile(np.array([0.0, 0, 320, 240]), (6, 1))
    frames[4] = np.nan
    places = {TokenPlace(i, 2, 3): f"{i}.png" for i in range(6)}

    def cut(content: Array | None) -> tuple[set[int], list[str], list[str]]:
        crops = cut_crops(dataset, places, frames, GRID, content=content)
        return {place.image for place in crops.files}, crops.missing, crops.unplaced

    lost = ["1.png", "2.png", "3.png", "5.png"]
    assert cut(np.append(measured, 0)) == ({0, 4}, lost, ["4.png"])
    unknown = np.zeros(6, dtype=np.int64)
    assert cut(unknown) == cut(None) == ({0, 3, 4}, ["1.png", "2.png", "5.png"], ["4.png"])
