"""Every kind of file becomes the picture worked out by hand, and every refusal is one useful sentence."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from classlens.models.images import Picture, open_picture, read_pictures
from tests.refusals import refused_with_advice as refused

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)

# v / 257 to the nearest: 128/257 = 0.498, 129/257 = 0.502, 385/257 = 1.498, 386/257 = 1.502, 32767/257 = 127.498,
# 32768/257 = 127.502, 65406/257 = 254.498, 65407/257 = 254.502.
DEEP = [0, 128, 129, 257, 385, 386, 32767, 32768, 65406, 65407, 65535]
SHALLOW = [0, 0, 1, 1, 1, 2, 127, 128, 254, 255, 255]

# What keeps colors whole (JPEG: nearly) where a format does not by itself.
LOSSLESS: dict[str, dict[str, Any]] = {"jpg": {"subsampling": 0, "quality": 95}, "webp": {"lossless": True}}


def pixels(picture: Picture) -> np.ndarray[Any, Any]:
    assert picture.image.mode == "RGB"
    return np.asarray(picture.image)


def gray(picture: Picture) -> list[int]:
    """The first row of a picture whose three channels agree."""
    values = pixels(picture)
    assert (values == values[..., :1]).all()
    return [int(value) for value in values[0, :, 0]]


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# Files of every kind


def test_a_name_is_the_path_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("猫 naïve\n.png", "cat.png"):
        Image.new("RGB", (2, 1), RED).save(name, "PNG")
    assert [picture.name for picture in read_pictures(["猫 naïve\n.png", Path("cat.png")])] == [
        "猫 naïve\n.png",
        "cat.png",
    ]
    refused(lambda: read_pictures("猫 naïve\n.png", smallest=(2, 2)), r"'猫 naïve\n.png'")
    assert open_picture(tmp_path / "cat.png").name == f"{tmp_path}{os.sep}cat.png"


@pytest.mark.parametrize(
    ("mode", "color", "extension", "expected"),
    [
        ("RGB", (1, 2, 3), "png", (1, 2, 3)),
        ("RGBA", (10, 20, 30, 0), "png", (10, 20, 30)),  # the color under the alpha, not a background
        ("LA", (77, 0), "png", (77, 77, 77)),
        ("L", 77, "png", (77, 77, 77)),
        ("1", 1, "png", WHITE),
        ("CMYK", (0, 255, 255, 0), "tiff", RED),  # no cyan, all magenta and yellow
        ("CMYK", (255, 0, 0, 0), "jpg", (0, 255, 255)),
        ("YCbCr", (76, 85, 255), "jpg", (254, 0, 0)),  # red in JFIF: Y 76.2, Cb 85.0, Cr 255.5
        ("LAB", (255, 128, 128), "tiff", WHITE),  # L = 100, a = b = 0
    ],
)
def test_color_modes(mode: str, color: Any, extension: str, expected: tuple[int, int, int], tmp_path: Path) -> None:
    path = tmp_path / f"plain.{extension}"
    image = Image.new(mode, (8, 8), color)
    image.save(path)
    tolerance = 2 if extension == "jpg" or mode == "LAB" else 0
    for picture in (open_picture(path), *read_pictures(image)):
        assert abs(pixels(picture).astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("RGBa", (50, 100, 10, 128), (99, 199, 19)),  # v · 255 / 128, floored
        ("La", (50, 128), (99, 99, 99)),
        ("HSV", (0, 255, 255), RED),
        ("RGBX", (1, 2, 3, 4), (1, 2, 3)),
        ("I;16B", 257 * 5, (5, 5, 5)),
        ("I;16L", 257 * 5, (5, 5, 5)),
    ],
)
def test_modes_that_only_live_in_memory(mode: str, color: Any, expected: tuple[int, int, int]) -> None:
    (picture,) = read_pictures(Image.new(mode, (2, 2), color))
    assert (pixels(picture) == expected).all()


@pytest.mark.parametrize("transparency", [None, 0, 1, bytes([0, 128, 255])])
@pytest.mark.parametrize("extension", ["png", "gif"])
def test_a_palette_keeps_its_colors_under_transparency(
    transparency: int | bytes | None, extension: str, tmp_path: Path
) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 200, 100, 50, 0, 0, 255])
    image.putdata([0, 1, 2])
    path = tmp_path / f"palette.{extension}"
    if extension == "gif" and isinstance(transparency, bytes):
        transparency = 2  # all that GIF can say
    options: dict[str, Any] = {} if transparency is None else {"transparency": transparency}
    image.save(path, **options)
    expected = [[[10, 20, 30], [200, 100, 50], [0, 0, 255]]]
    assert pixels(open_picture(path)).tolist() == expected
    with Image.open(path) as opened:
        assert pixels(read_pictures(opened)[0]).tolist() == expected


@pytest.mark.parametrize(("mode", "value", "transparency"), [("L", 9, 9), ("RGB", (9, 8, 7), (9, 8, 7)), ("1", 1, 1)])
def test_a_transparent_color_stays_a_color(mode: str, value: Any, transparency: Any, tmp_path: Path) -> None:
    path = tmp_path / "key.png"
    Image.new(mode, (2, 1), value).save(path, transparency=transparency)
    with Image.open(path) as image:
        assert "transparency" in image.info
    first = WHITE if mode == "1" else value if mode == "RGB" else (9, 9, 9)
    assert (pixels(open_picture(path)) == first).all()


@pytest.mark.parametrize(("extension", "kind"), [("png", "<u2"), ("tiff", "<u2"), ("tiff", ">u2")])
def test_16_bit_grey_is_scaled(extension: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"ramp.{extension}"
    Image.fromarray(np.array([DEEP], kind)).save(path)
    with Image.open(path) as image:
        assert image.mode.startswith("I;16")
    assert gray(open_picture(path)) == SHALLOW


def test_a_dark_pgm_of_16_bits_stays_dark(tmp_path: Path) -> None:
    path = tmp_path / "dark.pgm"
    path.write_bytes(b"P5 2 1 65535\n" + struct.pack(">2H", 0, 200))
    assert gray(open_picture(path)) == [0, 1]  # 200 / 257 = 0.78


def test_16_bit_color_gives_the_upper_byte(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + struct.pack(">6H", 0x1234, 0xABCD, 0xFF00, 0, 0x00FF, 0xFFFF)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    path = tmp_path / "deep.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    )
    assert pixels(open_picture(path)).tolist() == [[[0x12, 0xAB, 0xFF], [0, 0, 0xFF]]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 200, 255]], np.int32), [0, 200, 255]),
        (np.array([[0, 256, 65535]], np.int32), [0, 1, 255]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 127.6, 255.0]], np.float32), [0, 128, 255]),
    ],
)
def test_deep_modes(values: np.ndarray[Any, Any], expected: list[int], tmp_path: Path) -> None:
    image = Image.fromarray(values)
    assert image.mode in ("I", "F")
    image.save(tmp_path / "deep.tiff")
    assert gray(open_picture(tmp_path / "deep.tiff")) == expected
    assert gray(read_pictures(image)[0]) == expected


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.array([[-1, 3]], np.int32), "values from -1 to 3"),
        (np.array([[0, 65536]], np.int32), "values from 0 to 65536"),
        (np.array([[0.0, 300.0]], np.float32), "values from 0.0 to 300.0"),
        (np.array([[-0.5, 1.0]], np.float32), "values from -0.5 to 1.0"),
        (np.array([[0.25, np.nan]], np.float32), "values from 0.25 to 0.25 and 1 NaN"),
        (np.array([[np.nan]], np.float32), "nothing but NaN"),
        (np.array([[0.0, np.inf]], np.float32), "to inf"),
    ],
)
def test_deep_modes_out_of_range(values: np.ndarray[Any, Any], found: str, tmp_path: Path) -> None:
    path = tmp_path / "deep.tiff"
    Image.fromarray(values).save(path)
    refused(lambda: open_picture(path), "deep.tiff", found)


# The corners of the stored pixels (first row, then last) that show R G / B W once upright. By the EXIF standard, the
# first row and first column are the picture's 1: top, left; 2: top, right; 3: bottom, right; 4: bottom, left;
# 5: left, top; 6: right, top; 7: right, bottom; 8: left, bottom.
STORED = {1: "RGBW", 2: "GRWB", 3: "WBGR", 4: "BWRG", 5: "RBGW", 6: "GWRB", 7: "WGBR", 8: "BRWG"}


def stored(orientation: int) -> Image.Image:
    """A scene three wide and two high, each of its pixels 16 × 16, as a camera with this orientation stores it."""
    color = {"R": RED, "G": GREEN, "B": BLUE, "W": WHITE}
    rows, columns = (2, 3) if orientation < 5 else (3, 2)
    array = np.zeros((rows, columns, 3), np.uint8)
    for corner, letter in zip([(0, 0), (0, -1), (-1, 0), (-1, -1)], STORED[orientation], strict=True):
        array[corner] = color[letter]
    return Image.fromarray(array.repeat(16, 0).repeat(16, 1))


def scene(picture: Picture) -> str:
    """The corners of a picture as in STORED, each told by the middle of its block."""
    assert picture.image.size == (48, 32)
    letters = {(1, 0, 0): "R", (0, 1, 0): "G", (0, 0, 1): "B", (1, 1, 1): "W"}
    corners = [(8, 8), (40, 8), (8, 24), (40, 24)]
    bright = np.asarray(picture.image) > 127
    assert not bright[:, 16:32].any()
    return "".join(letters[tuple(bright[y, x].astype(int))] for x, y in corners)


@pytest.mark.parametrize("extension", ["jpg", "png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int, extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"photo.{extension}"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored(orientation).save(path, exif=exif, **LOSSLESS.get(extension, {}))
    picture = open_picture(path)
    assert scene(picture) == "RGBW"
    # Nothing is left that would turn it a second time.
    assert not picture.image.getexif()
    assert not picture.image.info
    assert ImageOps.exif_transpose(picture.image).tobytes() == picture.image.tobytes()
    with Image.open(path) as image:
        assert scene(read_pictures(image)[0]) == "RGBW"


def test_damage_to_other_exif_tags_does_not_hide_the_orientation(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    # A little-endian directory of two SHORT-sized entries: ImageWidth as a signed rational, Orientation = 6.
    entries = struct.pack("<HHIIHHII", 0x100, 10, 1, 8, 0x112, 3, 1, 6)
    stored(6).save(path, exif=b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<I", 0))
    assert scene(open_picture(path)) == "RGBW"


def test_unreadable_exif_leaves_the_picture_as_stored() -> None:
    image = stored(1)
    image.info["exif"] = b"Exif\0\0nothing of the kind"
    with pytest.raises(SyntaxError):
        image.copy().getexif()
    assert scene(read_pictures(image)[0]) == "RGBW"


@pytest.mark.parametrize("extension", ["gif", "webp", "tiff", "png"])
def test_the_first_frame_is_taken(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"frames.{extension}"
    first, second = Image.new("RGB", (4, 4), RED), Image.new("RGB", (4, 4), BLUE)
    first.save(path, save_all=True, append_images=[second], **LOSSLESS.get(extension, {}))
    with Image.open(path) as image:
        assert image.n_frames == 2  # type: ignore[attr-defined]
    assert (pixels(open_picture(path)) == RED).all()


# Files that cannot be read


@pytest.mark.parametrize("extension", ["jpg", "png", "gif", "bmp", "tiff", "webp"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_files(extension: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"cut.{extension}"
    Image.fromarray(np.random.randint(0, 256, (64, 64, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    open_picture(path)
    path.write_bytes(whole[: int(len(whole) * share)])
    refused(lambda: open_picture(path), "cut." + extension)
    refused(lambda: read_pictures([path]), "cut." + extension)


def test_a_truncated_pil_image(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.fromarray(np.random.randint(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:6000])
    with Image.open(path) as image:
        refused(lambda: read_pictures(image), "cut.png", "truncated")


def test_files_that_are_no_image(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not a picture\n" * 50)
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    refused(lambda: open_picture(tmp_path / "text.jpg"), "text.jpg", "not an image")
    refused(lambda: open_picture(tmp_path / "empty.png"), "empty.png", "is empty")
    refused(lambda: open_picture(tmp_path / "folder.png"), "folder.png", "is a folder")
    refused(lambda: open_picture(tmp_path / "missing.png"), "missing.png", "does not exist")
    refused(lambda: open_picture(tmp_path / "text.jpg" / "below.png"), "below.png", "does not exist")
    refused(lambda: open_picture("null\0.png"), r"'null\x00.png'")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    refused(lambda: open_picture(tmp_path / "pipe.png"), "pipe.png", "not a regular file")


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.png"
    Image.new("RGB", (2, 2)).save(path)
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads everything

        def deny(*args: object, **kwargs: object) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(Image, "open", deny)
    refused(lambda: open_picture(path), "secret.png", "may not be read")


@pytest.mark.parametrize("side", [4, 5])  # 16 pixels: Pillow warns; 25, more than twice the limit: it raises
def test_decompression_bombs(side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    Image.new("RGB", (side, side)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for action in ("ignore", "error"):
        with warnings.catch_warnings():
            warnings.simplefilter(action)
            refused(lambda: open_picture(path), "bomb.png", "at most 10 pixels")


def test_what_a_reader_says_is_held_to_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no decoder\n  for this" + 1000 * "!")

    (tmp_path / "odd.png").write_bytes(b"odd")
    monkeypatch.setattr(Image, "open", fail)
    refused(lambda: open_picture(tmp_path / "odd.png"), "odd.png", "(no decoder for this!")


def test_a_closed_pil_image(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "shut.png")
    with Image.open(tmp_path / "shut.png") as image:
        pass
    refused(lambda: read_pictures(image), "shut.png", "cannot be read")
