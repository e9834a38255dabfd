"""Photos with a file of their mask each: ``.png``, ``.bmp`` or ``.npy``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from classlens.core.arrays import Array
from classlens.data.dataset import ImageFiles, Masks, Source, file_content
from classlens.data.mask_values import MaskValues, Values
from classlens.errors import ClasslensError, cause
from classlens.models.images import stored_size

SUFFIXES = (".png", ".bmp", ".npy")
_GRAY = {"LA": "L", "La": "L", "PA": "P"}
_IN_COLOR = ("RGB", "RGBA", "RGBa", "RGBX")
_IN_NUMBERS = ("1", "L", "P", "I", "I;16", "I;16B", *_GRAY)
_QUARTER_TURNS: dict[Image.Transpose | None, Callable[[Array], Array]] = {
    Image.Transpose.TRANSPOSE: np.transpose,
    Image.Transpose.ROTATE_90: np.rot90,
    Image.Transpose.ROTATE_270: lambda values: np.rot90(values, -1),
    Image.Transpose.TRANSVERSE: lambda values: np.rot90(values, 2).T,
}


@dataclass(frozen=True, eq=False)
class MaskFiles:
    """A source whose images have masks in files, in place of any of its own.

    Args:
        photos: where the images come from.
        files: file of the mask by position of the image; it need not exist.
        values: what the values of the masks mean, by position, or of all at ``None``.
        missing: positions of images whose mask is known to be missing.
    """

    photos: Source
    files: Mapping[int, Path]
    values: Mapping[int | None, MaskValues]
    missing: frozenset[int] = frozenset()
    has_masks: bool = True

    def picture(self, position: int) -> Image.Image:
        return self.photos.picture(position)

    def content(self, position: int) -> int:
        return self.photos.content(position) ^ self.mask_content(position)

    def mask_content(self, position: int) -> int:
        """A number that changes with the mask."""
        return file_content(self.files[position])

    def masks(self, position: int) -> Masks:
        """Both, from one reading of the file."""
        meaning = self.values.get(position) or self.values[None]
        file = self.files[position]
        values = read_values(file, colors=meaning.colors)
        if isinstance(self.photos, ImageFiles):
            values = turned_as(self.photos.root / self.photos.paths[position], values)
        return meaning.parts(values, str(file))


def read_values(file: Path, *, colors: bool = False) -> Values:
    """The values of a mask, or its colors; raises ClasslensError for a file that holds no mask."""
    name = str(file)
    if not file.is_file():
        raise ClasslensError(
            f"mask {name!r} does not exist{_others(file)}: expected a mask of each photo; add it, or choose photos "
            "that have masks"
        )
    try:
        values = _array(file) if file.suffix.lower() == ".npy" else _picture(file, colors=colors)
    except (ClasslensError, MemoryError):
        raise
    except Exception as error:  # what Pillow's readers raise over a damaged file is not bounded
        raise ClasslensError(f"mask {name!r} cannot be read ({cause(error)}): copy or save it again") from None
    if values.ndim == 3 and values.shape[2] in (3, 4) and values.dtype == np.uint8:
        red, green, blue = np.moveaxis(values[..., :3].astype(np.int32), 2, 0)
        if colors:
            values = red * 65536 + green * 256 + blue
        elif bool((red == green).all() and (green == blue).all()):
            values = values[..., 0]
        else:
            raise ClasslensError(
                f"mask {name!r} is in color: name the colors of the object as mask_values (--mask-values), such as "
                f"object=#{int(red.max()):02x}{int(green.max()):02x}{int(blue.max()):02x}"
            )
    elif colors:
        raise ClasslensError(
            f"mask {name!r} holds numbers, not colors: expected a mask in color or with a palette; give the numbers of "
            "the object as mask_values (--mask-values)"
        )
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    if values.ndim != 2 or values.dtype.kind not in "iu" or not values.size:
        raise ClasslensError(
            f"mask {name!r} is an array of {values.dtype} {list(values.shape)}: expected whole numbers or bool "
            "[height, width], or colors as uint8 [height, width, 3]"
        )
    return values


def _array(file: Path) -> Array:
    values: Array = np.load(file, allow_pickle=False)
    if not isinstance(values, np.ndarray):
        raise ValueError("it holds several arrays")
    if values.dtype.kind == "f" and np.isfinite(values).all() and (values == np.floor(values)).all():
        return values.astype(np.int64)
    return values


def _picture(file: Path, *, colors: bool) -> Array:
    """Values, indices of a palette, or colors."""
    with Image.open(file) as image:
        image.load()
        if image.mode not in (*_IN_NUMBERS, *_IN_COLOR):
            raise ValueError(f"its pixels are of mode {image.mode}")
        if colors and not image.mode.startswith("I"):
            image.info.pop("transparency", None)
            return np.asarray(image.convert("RGB"))
        if image.mode in _IN_COLOR:
            return np.asarray(image)
        return np.asarray(image.getchannel(_GRAY[image.mode]) if image.mode in _GRAY else image)


def _others(file: Path) -> str:
    beside = [suffix for suffix in SUFFIXES if suffix != file.suffix]
    return f", nor with the ending {' or '.join(beside)}"


def turned_as(photo: Path, values: Array) -> Array:
    """The mask of a photo as it is stored, turned with the photo where EXIF data turn that by a quarter.

    Only a mask of the size before the turn is turned: one of the size after it was drawn on the upright photo.
    """
    size, turn = stored_size(photo)
    turned = _QUARTER_TURNS.get(turn)
    return values if turned is None or values.shape != size or size == size[::-1] else turned(values)
