"""Arrays of every type and shape, and many images at once; files are in test_images.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import ExifTags, Image

from classlens.models.images import Picture, read_pictures
from tests.refusals import refused_with_advice as refused

RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)

# v / 257 to the nearest: 128/257 = 0.498, 129/257 = 0.502, 385/257 = 1.498, 386/257 = 1.502, 32767/257 = 127.498,
# 32768/257 = 127.502, 65406/257 = 254.498, 65407/257 = 254.502.
DEEP = [0, 128, 129, 257, 385, 386, 32767, 32768, 65406, 65407, 65535]
SHALLOW = [0, 0, 1, 1, 1, 2, 127, 128, 254, 255, 255]

RGB_ARRAYS = arrays.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(3)))


def pixels(picture: Picture) -> np.ndarray[Any, Any]:
    assert picture.image.mode == "RGB"
    return np.asarray(picture.image)


def gray(picture: Picture) -> list[int]:
    """The first row of a picture whose three channels agree."""
    values = pixels(picture)
    assert (values == values[..., :1]).all()
    return [int(value) for value in values[0, :, 0]]


@given(RGB_ARRAYS)
def test_rgb_arrays_survive(array: np.ndarray[Any, Any]) -> None:
    for same in (array, array / 255, (array / 255).astype(np.float16), array.astype(np.uint16) * 257):
        assert (pixels(read_pictures(same)[0]) == array).all()
    assert (pixels(read_pictures(Image.fromarray(array))[0]) == array).all()


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[0, 7, 255]], np.uint8), [0, 7, 255]),
        (np.array([DEEP], np.uint16), SHALLOW),
        (np.array([DEEP], ">u2"), SHALLOW),
        (np.array([[False, True]]), [0, 255]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 0.1, 1.0]], np.float64), [0, 26, 255]),  # 25.5 goes up
        (np.array([[0.0, 1.0]], np.float16), [0, 255]),
    ],
)
def test_array_types(array: np.ndarray[Any, Any], expected: list[int]) -> None:
    assert gray(read_pictures(array)[0]) == expected
    assert gray(read_pictures(array[..., None])[0]) == expected
    assert gray(read_pictures(np.stack([array] * 3, -1))[0]) == expected


def test_array_shapes() -> None:
    batch = np.arange(2 * 4 * 5 * 4, dtype=np.uint8).reshape(2, 4, 5, 4)
    for given_, expected in [
        (batch, batch[..., :3]),
        (batch[..., :3], batch[..., :3]),
        (batch[..., :1], batch[..., [0, 0, 0]]),
        (batch[0], batch[:1, ..., :3]),
        (batch[0, :, ::-1, 2], batch[:1, :, ::-1, [2, 2, 2]]),
        (np.asfortranarray(batch[..., :3]), batch[..., :3]),
    ]:
        pictures = read_pictures(given_)
        assert [picture.name for picture in pictures] == ["image 0", "image 1"][: len(expected)]
        assert (np.stack([pixels(picture) for picture in pictures]) == expected).all()


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((3, 8, 9)), "[3, 8, 9], channels first: expected channels last"),
        (np.zeros((2, 3, 8, 9), np.uint8), "[2, 3, 8, 9], channels first: expected channels last"),
        (np.zeros((8, 9, 2)), "[8, 9, 2]"),
        (np.zeros(5), "[5]"),
        (np.zeros(()), "shape []"),
        (np.zeros((1, 2, 2, 2, 3)), "[1, 2, 2, 2, 3]"),
        (np.zeros((0, 4, 3), np.uint8), "without pixels"),
        (np.zeros((4, 4), np.int64), "int64"),
        (np.zeros((4, 4), object), "object"),
        (np.full((4, 4), 1.5, np.float32), "values from 1.5 to 1.5"),
        (np.array([[0, 200.0]]), "values from 0.0 to 200.0"),
        (np.array([[-0.25, 1.0]]), "values from -0.25 to 1.0"),
        (np.array([[0.5, np.nan]]), "values from 0.5 to 0.5 and 1 NaN"),
        (np.array([[0.5, -np.inf]]), "values from -inf to 0.5"),
    ],
)
def test_arrays_that_are_no_picture(array: np.ndarray[Any, Any], found: str) -> None:
    refused(lambda: read_pictures(array), "image 0 is an array", found)
    good = Image.new("RGB", (1, 1))
    refused(lambda: read_pictures([good, array]), "image 1 is an array", found)


def test_alpha_is_dropped_whatever_it_holds() -> None:
    (picture,) = read_pictures(np.array([[[0.0, 0.5, 1.0, np.nan]]]))
    assert pixels(picture).tolist() == [[[0, 128, 255]]]


def test_the_advice_for_channels_first_helps() -> None:
    array = np.random.randint(0, 256, (2, 3, 8, 9), np.uint8)
    pictures = read_pictures(np.moveaxis(array, -3, -1))
    assert (pixels(pictures[1])[5, 6] == array[1, :, 5, 6]).all()


def test_names_in_a_mixed_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "a.png (2)", "image 4"):
        Image.new("RGB", (2, 2)).save(name, "PNG")

    def mixed() -> Iterator[Any]:
        yield "a.png"
        yield Path("a.png")
        opened = Image.open("a.png (2)")  # the name of a file, taken already by the second a.png
        opened.filename = "a.png (2)"  # which older releases of Pillow make absolute
        yield opened
        yield "image 4"
        yield np.zeros((2, 2, 2, 3), np.uint8)
        yield Image.new("L", (2, 2))

    assert [picture.name for picture in read_pictures(mixed())] == [
        "a.png",
        "a.png (2)",
        "a.png (2) (2)",
        "image 4",
        "image 4 (2)",
        "image 5",
        "image 6",
    ]
    assert [picture.name for picture in read_pictures(("a.png",) * 3)] == ["a.png", "a.png (2)", "a.png (3)"]
    again = ("a.png", "a.png (2)", "a.png")
    assert [picture.name for picture in read_pictures(again)] == ["a.png", "a.png (2)", "a.png (3)"]


def test_smallest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (1, 1), GREEN).save("dot.png")
    assert pixels(read_pictures("dot.png")[0]).tolist() == [[list(GREEN)]]
    refused(
        lambda: read_pictures("dot.png", smallest=(8, 8)),
        "image 'dot.png' is 1×1 pixels, fewer than the 8×8 tokens of the model's grid",
        "give a larger image",
    )
    tall = np.zeros((9, 4), np.uint8)
    assert len(read_pictures(tall, smallest=(9, 4))) == 1
    refused(lambda: read_pictures(tall, smallest=(9, 5)), "image 0 is 9×4 pixels, fewer than the 9×5 tokens")
    refused(lambda: read_pictures(tall, smallest=(10, 4)), "image 0 is 9×4 pixels, fewer than the 10×4 tokens")
    refused(lambda: read_pictures(Image.new("RGB", (0, 3))), "image 0 has no pixels")


@pytest.mark.parametrize("images", [[], (), iter(()), np.zeros((0, 4, 4, 3), np.uint8)])
def test_no_images(images: Any) -> None:
    refused(lambda: read_pictures(images), "no images were given", "at least one")


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (None, "images are of type NoneType"),
        (3, "images are of type int"),
        (b"\x89PNG", "images are of type bytes"),
        ({"cat": "cat.png"}, "images are of type dict"),
        ([Image.new("L", (1, 1)), None], "image 1 is of type NoneType"),
        ([[np.zeros((2, 2))]], "image 0 is of type list"),
        ([torch.zeros(3, 2, 2)], "image 0 is of type torch.Tensor"),
    ],
)
def test_unsupported_types(images: Any, found: str) -> None:
    refused(lambda: read_pictures(images), found, "a path", "a PIL image", "a numpy array")


def test_what_was_given_is_neither_changed_nor_shared() -> None:
    image = Image.new("P", (3, 2), 1)
    image.putpalette([1, 2, 3, 4, 5, 6])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image.info = {"transparency": bytes([0, 9]), "exif": exif.tobytes()}
    before = (image.mode, image.size, image.tobytes(), dict(image.info), dict(image.getexif()))
    (picture,) = read_pictures(image)
    assert picture.image.size == (2, 3)
    assert (image.mode, image.size, image.tobytes(), dict(image.info), dict(image.getexif())) == before

    plain, array = Image.new("RGB", (2, 2), RED), np.full((2, 2, 3), RED, np.uint8)
    first, second = read_pictures([plain, array])
    first.image.putpixel((0, 0), BLUE)
    array[:] = BLACK
    assert plain.getpixel((0, 0)) == RED
    assert (pixels(second) == RED).all()
