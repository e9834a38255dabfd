"""Paths, PIL images and arrays from a user, as named RGB pictures."""

from __future__ import annotations

import io
import os
import re
import stat
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from classlens.core.home import expanded
from classlens.errors import ClasslensError
from classlens.models.png import is_too_much_text, without_text

ImageLike: TypeAlias = str | os.PathLike[str] | Image.Image | NDArray[Any]

_ACCEPTED = (
    "a path, a PIL image, a numpy array [height, width], [height, width, channel] or [image, height, width, channel], "
    "or several of these in a list"
)

# Transpositions that set a picture upright, by its EXIF orientation; 1 is upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Picture:
    """A named, upright RGB image without EXIF data, color profile or other metadata."""

    name: str
    image: Image.Image


def open_picture(path: str | os.PathLike[str]) -> Picture:
    """Load one image file.

    The picture is turned upright by its EXIF orientation. Alpha is dropped, as in torchvision's and timm's loaders.
    The first of several frames is used. Deeper pixels are scaled to 8 bits, never clipped:

    - 16-bit gray is divided by 257 and rounded; 16-bit color keeps its upper byte, as Pillow returns it;
    - 32-bit integers count as 16-bit where the largest exceeds 255 (in PGM files, which hold at most 16 bits,
      always), otherwise as 8-bit;
    - floats count as 0…1 where none exceeds 1, otherwise as 0…255.

    Args:
        path: a file in any format that Pillow supports.

    Returns:
        A ``Picture`` whose name is the given path.

    Raises:
        ClasslensError: the file is missing, unreadable, empty, truncated or not an image, has more pixels than
            Pillow's ``Image.MAX_IMAGE_PIXELS``, or holds numbers outside the ranges above.

    Examples:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
        ...     Image.new("L", (4, 2)).save(file.name)
        ...     open_picture(file.name).image
        <PIL.Image.Image image mode=RGB size=4x2 at 0x...>
    """
    name, path = os.fsdecode(path), expanded(path)
    label = f"image {name!r}"
    with _reporting_failures(label):
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise ClasslensError(f"{label} is a folder: expected an image file; give the paths of the images in it")
        if not stat.S_ISREG(status.st_mode):
            raise ClasslensError(f"{label} is not a regular file: expected an image file; save it to one first")
        if status.st_size == 0:
            raise ClasslensError(f"{label} is empty (0 bytes): expected an image file; copy or download it again")
        return Picture(name, _open_upright(path, label))


def open_bytes(data: bytes, name: str, formats: tuple[str, ...] | None = None) -> Picture:
    """``open_picture`` for the content of a file; ``formats``: those of Pillow's that are read, all when left out."""
    with _reporting_failures(_label(name)):
        return Picture(name, _open_upright(data, _label(name), formats))


def read_pictures(images: object, *, smallest: tuple[int, int] = (1, 1)) -> list[Picture]:
    """Load and name one image or many.

    Args:
        images: a path, a PIL image, an array, or any iterable that mixes these. Arrays are ``[height, width]``,
            ``[height, width, channel]`` or, for several images, ``[image, height, width, channel]`` with 1, 3 (RGB)
            or 4 (RGB and alpha, which is dropped) channels; uint8, uint16 (divided by 257 and rounded), bool, or
            floats in 0…1. Paths and PIL images are treated as in ``open_picture``; a PIL image is never changed.
        smallest: minimum height and width of an image in pixels: the model's grid of tokens.

    Returns:
        A ``Picture`` for each image, in order. Its name is its path, also for a PIL image that was opened from a
        path, or else ``"image 0"``, ``"image 1"``… by its position in the list. A repeated name gets a number, as in
        ``"cat.png (2)"``.

    Raises:
        ClasslensError: no image, an object that is not an image, an image that cannot be loaded or is smaller than
            ``smallest``, an array of another shape or type, or floats that are NaN or outside 0…1.

    Examples:
        >>> import numpy as np
        >>> gray = np.array([[0.0, 0.5, 1.0]])
        >>> [picture.name for picture in read_pictures([gray, Image.new("RGB", (2, 2))])]
        ['image 0', 'image 1']
        >>> read_pictures(gray)[0].image.getpixel((1, 0))
        (128, 128, 128)
    """
    pictures: list[Picture] = []
    for item in _iterate(images):
        for picture in _read(item, len(pictures)):
            width, height = picture.image.size
            if height < smallest[0] or width < smallest[1]:
                raise ClasslensError(
                    f"{_label(picture.name)} is {height}×{width} pixels, fewer than the {smallest[0]}×{smallest[1]} "
                    "tokens of the model's grid (height × width); give a larger image"
                )
            pictures.append(picture)
    if not pictures:
        raise ClasslensError(f"no images were given: expected at least one; give {_ACCEPTED}")
    return _with_unique_names(pictures)


def _iterate(images: object) -> Iterable[Any]:
    """The images one by one. Bytes, mappings and open files are iterable too, but not over images."""
    if isinstance(images, str | os.PathLike | Image.Image | np.ndarray):
        return [images]
    if isinstance(images, bytes | bytearray | memoryview | Mapping | io.IOBase) or not isinstance(images, Iterable):
        raise ClasslensError(f"images are of type {_type(images)}: expected {_ACCEPTED}; convert them to one of these")
    return images


def _read(item: Any, position: int) -> Iterator[Picture]:
    """The pictures of one item (several for a batch array), from ``position`` of the list on."""
    name = f"image {position}"
    if isinstance(item, str | os.PathLike):
        yield open_picture(item)
    elif isinstance(item, Image.Image):
        name = os.fsdecode(getattr(item, "filename", "") or name)
        with _reporting_failures(_label(name)):
            picture = Picture(name, _upright_rgb(item, _label(name)))
        yield picture
    elif isinstance(item, np.ndarray):
        for offset, frame in enumerate(_frames(item, name)):
            name = f"image {position + offset}"
            yield Picture(name, _from_array(frame, name))
    else:
        raise ClasslensError(f"{name} is of type {_type(item)}: expected {_ACCEPTED}; convert it to one of these")


def _with_unique_names(pictures: list[Picture]) -> list[Picture]:
    """The same pictures, with `` (2)``, `` (3)``… after each repeated name."""
    taken: set[str] = set()
    copies: dict[str, int] = {}
    renamed = []
    for picture in pictures:
        name = picture.name
        while name in taken:
            copies[picture.name] = copies.get(picture.name, 1) + 1
            name = f"{picture.name} ({copies[picture.name]})"
        taken.add(name)
        renamed.append(replace(picture, name=name))
    return renamed


def _label(name: str) -> str:
    """An image's name in an error: image 'cat.png', or image 0 for an image without a path."""
    return name if re.fullmatch(r"image \d+", name) else f"image {name!r}"


def _type(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


@contextmanager
def _reporting_failures(label: str) -> Iterator[None]:
    """Turn errors of the system and of Pillow into one sentence about the image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (ClasslensError, MemoryError):
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise ClasslensError(f"{label} does not exist: expected an image file; check the path") from None
    except PermissionError:
        raise ClasslensError(f"{label} may not be read: expected a readable file; change its permissions") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ClasslensError(
            f"{label} is too large: expected at most {Image.MAX_IMAGE_PIXELS} pixels, Pillow's guard against "
            "decompression bombs; scale it down, or raise PIL.Image.MAX_IMAGE_PIXELS where you trust it"
        ) from None
    except UnidentifiedImageError:
        raise ClasslensError(
            f"{label} is not an image that Pillow knows: expected a whole file such as PNG, JPEG, WebP, TIFF or GIF; "
            "convert it to one of these"
        ) from None
    except Exception as error:  # Pillow raises almost any exception for a damaged file
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ClasslensError(
            f"{label} cannot be read ({reason}): expected a whole image; copy it, or save it as PNG, and try again"
        ) from None


def _open_upright(
    file: bytes | str | os.PathLike[str], label: str, formats: tuple[str, ...] | None = None
) -> Image.Image:
    """A file, or its content, as an upright RGB image; text beside the picture is left out where it is too long."""
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=formats) as image:
            return _upright_rgb(image, label)
    except ValueError as error:
        if not is_too_much_text(error):
            raise
    with Image.open(io.BytesIO(without_text(file)), formats=formats) as image:
        return _upright_rgb(image, label)


def _upright_rgb(image: Image.Image, label: str) -> Image.Image:
    """A new upright RGB image without metadata."""
    if 0 in image.size:
        raise ClasslensError(f"{label} has no pixels: expected at least one; give another image")
    image.load()
    rgb = _rgb(image, label)
    rgb.info = {}
    turn = _turn(image)
    return rgb if turn is None else rgb.transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """The transposition for an image's EXIF orientation; damaged EXIF data is ignored, as in viewers.

    ``ImageOps.exif_transpose`` also writes the metadata back, and fails where an unrelated tag is damaged.
    """
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF data raises almost anything
        return None


def stored_size(path: str | os.PathLike[str]) -> tuple[tuple[int, int], Image.Transpose | None]:
    """Height and width of a file's pixels before ``open_picture`` turns them upright, and how it does.

    Sizes of 0 for a file that is no image.
    """
    try:
        with Image.open(path) as image:
            return (image.height, image.width), _turn(image)
    except Exception:  # as in _reporting_failures, which reports it where the pixels are read
        return (0, 0), None


def _rgb(image: Image.Image, label: str) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16") or image.mode == "F":
        return Image.fromarray(_scaled(np.asarray(image), image, label)).convert("RGB")
    if image.mode == "La":  # gray multiplied by alpha; Pillow's conversion to RGB would not divide by it
        image = image.convert("LA")
    elif "transparency" in image.info:
        # Otherwise convert computes a transparent color for RGB, or warns about a palette with several.
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")


def _scaled(values: NDArray[Any], image: Image.Image, label: str) -> NDArray[np.uint8]:
    """The pixels of one of Pillow's deep modes, scaled to 8 bits."""
    if image.mode.startswith("I;16"):
        return _from_16_bit(values)
    low, high = values.min(), values.max()
    if image.mode == "I" and low >= 0 and high <= 65535:
        # Pillow opens 16-bit PGM files, however dark, in this mode: only the format tells how bright 200 is.
        deep = high > 255 or image.format == "PPM"
        return _from_16_bit(values) if deep else values.astype(np.uint8)
    if image.mode == "F" and low >= 0 and high <= 255:
        return _rounded(values.astype(np.float64) * (255 if high <= 1 else 1))
    expected = "integers from 0 to 65535" if image.mode == "I" else "finite floats from 0 to 1 or from 0 to 255"
    raise ClasslensError(f"{label} (mode {image.mode}) holds {_range(values)}: expected {expected}; rescale its pixels")


def _frames(array: NDArray[Any], label: str) -> list[NDArray[Any]]:
    """The images ``[height, width]`` or ``[height, width, channel]`` of an array; the last axis decides."""
    shape = array.shape
    if 0 in shape[-3:] and array.ndim > 1:
        raise ClasslensError(
            f"{label} is an array of shape {list(shape)}, without pixels: expected at least one; give another"
        )
    if array.ndim == 2 or (array.ndim == 3 and shape[-1] in (1, 3, 4)):
        return [array]
    if array.ndim == 4 and shape[-1] in (1, 3, 4):
        return list(array)
    if array.ndim in (3, 4) and shape[-3] in (1, 3, 4):
        raise ClasslensError(
            f"{label} is an array of shape {list(shape)}, channels first: expected channels last; move them with "
            "numpy.moveaxis(array, -3, -1)"
        )
    raise ClasslensError(
        f"{label} is an array of shape {list(shape)}: expected [height, width], [height, width, channel] or "
        "[image, height, width, channel] with 1, 3 or 4 channels; reshape it"
    )


def _from_array(frame: NDArray[Any], label: str) -> Image.Image:
    if frame.ndim == 3:
        frame = frame[..., 0] if frame.shape[-1] == 1 else frame[..., :3]
    return Image.fromarray(_eight_bit(frame, label)).convert("RGB")


def _eight_bit(array: NDArray[Any], label: str) -> NDArray[np.uint8]:
    # By kind and size, as a dtype of other byte order is not equal to numpy.uint16.
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "u" and size == 1:
        return array.astype(np.uint8)
    if kind == "u" and size == 2:
        return _from_16_bit(array)
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if kind != "f":
        raise ClasslensError(
            f"{label} is an array of type {array.dtype}: expected uint8, uint16, bool or floats from 0 to 1; convert "
            'it, such as with array.astype("uint8") where it holds 0 to 255'
        )
    if not (array.min() >= 0 and array.max() <= 1):
        raise ClasslensError(
            f"{label} is an array of floats that holds {_range(array)}: expected floats from 0 to 1; rescale them, or "
            'use array.astype("uint8") where they are 0 to 255'
        )
    return _rounded(array.astype(np.float64) * 255)


def _from_16_bit(values: NDArray[Any]) -> NDArray[np.uint8]:
    """0…65535 to 0…255, rounded; 65535 = 255 · 257."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _rounded(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Round half up, so that 0.5 is always 128."""
    return np.floor(values + 0.5).astype(np.uint8)


def _range(values: NDArray[Any]) -> str:
    """The range of values for an error; NaN is counted separately."""
    nan = np.isnan(values)
    if nan.all():
        return "nothing but NaN"
    numbers = values[~nan]
    return f"values from {numbers.min()} to {numbers.max()}" + (f" and {nan.sum()} NaN" if nan.any() else "")
