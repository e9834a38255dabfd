"""Masks of one's own: files, values, colors and sizes, beside images of any layout."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from classlens.core.arrays import Array
from classlens.data.dataset import Dataset
from classlens.data.loading import Batch, ImageReader
from classlens.data.mask_values import parse_mask_values
from classlens.data.open_dataset import open_dataset
from classlens.models.transforms import Preprocessing, paper_transform
from tests.data import drawn
from tests.refusals import refused

RED, GREEN, GRAY, BLACK = (255, 0, 0), (0, 255, 0), (192, 192, 192), (0, 0, 0)
COLORS = np.array([BLACK, RED, GREEN, GRAY], dtype=np.uint8)
NUMBERS = {"dot": 0, "o": 1, "b": 2, "x": 3}


def palette(values: Array) -> Image.Image:
    image = Image.fromarray(values).convert("L")
    image.putpalette(COLORS.ravel().tolist())
    return image


def alpha(values: Array) -> Image.Image:
    return Image.fromarray(np.concatenate([COLORS[values], values[..., None] * 60], axis=2), "RGBA")


Writer = Callable[[Array, Path], None]
WRITERS: dict[str, tuple[str, Writer]] = {
    "gray": (".png", lambda values, path: Image.fromarray(values).save(path)),
    "16 bit": (".png", lambda values, path: Image.fromarray(values.astype(np.uint16)).save(path)),
    "gray and alpha": (".PNG", lambda values, path: Image.fromarray(values).convert("LA").save(path, format="PNG")),
    "gray as color": (".png", lambda values, path: Image.fromarray(values).convert("RGB").save(path)),
    "bitmap": (".bmp", lambda values, path: Image.fromarray(values).save(path)),
    "array": (".npy", lambda values, path: np.save(path, values.astype(np.int64))),
    "array of floats": (".npy", lambda values, path: np.save(path, values.astype(np.float32))),
    "palette": (".png", lambda values, path: palette(values).save(path)),
    "palette bitmap": (".bmp", lambda values, path: palette(values).save(path)),
    "color": (".png", lambda values, path: Image.fromarray(COLORS[values]).save(path)),
    "color bitmap": (".bmp", lambda values, path: Image.fromarray(COLORS[values]).save(path)),
    "color and alpha": (".png", lambda values, path: alpha(values).save(path)),
    "array of colors": (".npy", lambda values, path: np.save(path, COLORS[values])),
}


def folder(root: Path, names: tuple[str, ...] = ("cat/a.jpg",), size: tuple[int, int] = (16, 16)) -> str:
    for name in names:
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (0, 0, 90)).save(path)
        (root / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
    return f"folder:{root / 'images'}"


def opened(root: Path, values: str | None = None, **options: Any) -> Dataset:
    return open_dataset(f"folder:{root / 'images'}", masks=root / "masks", mask_values=values, **options)


def read(dataset: Dataset, size: tuple[int, int] = (16, 16)) -> Batch:
    reader = ImageReader(dataset, Preprocessing(paper_transform(size)), (3, *size), (4, 4), ignore_unknown=True)
    return reader.batch(range(len(dataset)))


NUMBERED, COLORED = list(WRITERS)[:9], list(WRITERS)[7:]  # a palette has both


@pytest.mark.parametrize("kind", NUMBERED)
def test_numbers(kind: str, tmp_path: Path) -> None:
    suffix, write = WRITERS[kind]
    folder(tmp_path)
    write(drawn.values(**NUMBERS), tmp_path / f"masks/cat/a{suffix}")
    drawn.check(opened(tmp_path, "object=1 ignore=3"))


@pytest.mark.parametrize("kind", COLORED)
def test_colors(kind: str, tmp_path: Path) -> None:
    suffix, write = WRITERS[kind]
    folder(tmp_path)
    write(drawn.values(**NUMBERS), tmp_path / f"masks/cat/a{suffix}")
    drawn.check(opened(tmp_path, "object=#FF0000 ignore=#c0c0c0 background=#000000,#00ff00"))


@pytest.mark.parametrize("value", [1, 255])
@pytest.mark.parametrize("kind", ["gray", "bool", "one bit"])
def test_two_values(value: int, kind: str, tmp_path: Path) -> None:
    folder(tmp_path)
    shows = np.array([[letter == "o" for letter in row] for row in drawn.DRAWING])
    if kind == "bool":
        np.save(tmp_path / "masks/cat/a.npy", shows)
    else:
        gray = Image.fromarray(shows.astype(np.uint8) * (value if kind == "gray" else 255))
        (gray if kind == "gray" else gray.convert("1")).save(tmp_path / "masks/cat/a.png")
    data = opened(tmp_path)
    np.testing.assert_array_equal(data.mask(0), shows)
    assert data.ignored(0) is None
    assert data.masks == "two values"


def test_the_place_of_a_mask(tmp_path: Path) -> None:
    """Beside the split or not, by the name with its ending or without, in any layout."""
    names = ("test/cat/a.jpg", "test/cat/deep/b.jpg", "test/dog/c.tar.png", "test/dog/d.jpg", "test/dog/d.png")
    spec = folder(tmp_path, names)
    ones = np.ones((16, 16), dtype=np.uint8)
    masks = ("cat/a.png", "cat/deep/b.npy", "dog/c.tar.bmp", "dog/d.jpg.png", "dog/d.png.png")
    for number, name in enumerate(masks):
        path = tmp_path / "masks/test" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        values = ones.copy()
        values[number] = 0
        np.save(path, values) if path.suffix == ".npy" else Image.fromarray(values).save(path)
    for place in ("masks", "masks/test"):
        data = open_dataset(spec, split="test", masks=tmp_path / place)
        assert [int(np.flatnonzero(~data.mask(index).any(axis=1))[0]) for index in range(5)] == list(range(5))
    listed = tmp_path / "images/list.txt"
    listed.write_text("test/cat/a.jpg\n")
    data = open_dataset(f"list:{listed}", masks=tmp_path / "masks")
    copy = pickle.loads(pickle.dumps(data.subset([0])))
    assert copy.mask(0).sum() == 15 * 16
    assert copy.content_digest == data.content_digest


def test_places_that_are_refused(tmp_path: Path) -> None:
    spec = folder(tmp_path, ("cat/a.jpg", "cat/a.png"))
    refused(lambda: opened(tmp_path), "hold none of any image", "cat/a.png", "'cat/a.jpg'")
    Image.new("L", (16, 16), 1).save(tmp_path / "masks/cat/a.png")
    refused(lambda: opened(tmp_path), "have one mask", "'a.png.png'")
    (tmp_path / "images/cat/a.png").unlink()
    assert opened(tmp_path).mask(0) is not None
    np.save(tmp_path / "masks/cat/a.npy", np.ones((16, 16), dtype=bool))
    refused(lambda: opened(tmp_path), "'cat/a.jpg' has the masks", "'a.png'")
    refused(lambda: open_dataset(spec, masks=tmp_path / "none"), "no folder")
    refused(lambda: open_dataset(spec, mask_values="object=1"), "without masks")
    listed = tmp_path / "masks/list.txt"
    for path in (tmp_path / "images/cat/a.jpg", "../images/cat/a.jpg"):
        listed.write_text(f"{path}\n")
        refused(lambda: open_dataset(f"list:{listed}", masks=tmp_path / "masks"), repr(str(path)), "outside")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", "do not say which show the object"),
        ("ignore=3", "do not say which show the object"),
        ("objects=1", "did you mean 'object'"),
        ("object", "at 'object'"),
        ("object=", "''"),
        ("object=1.5", "'1.5'"),
        ("object=-1", "'-1'"),
        ("object=#12345", "'#12345'"),
        ("object=1,#ff0000", "give either"),
        ("object=1 ignore=2,1", "two meanings to 1"),
        ("object=#ff0000 ignore=#FF0000", "two meanings to #ff0000"),
        ("object=1 object=2", "twice"),
    ],
)
def test_values_that_are_not_understood(text: str, parts: str) -> None:
    refused(lambda: parse_mask_values(text), repr(text), parts)


def two_arrays(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a.npy", "b.npy"):
            content = io.BytesIO()
            np.save(content, np.ones((16, 16)))
            archive.writestr(name, content.getvalue())


# Faults of the mask of a photo 16 wide and 12 high: its file, the values given, and words of the error.
MISFITS: dict[str, tuple[str, Any, str | None, str]] = {
    "size": (".npy", np.ones((16, 12), dtype=bool), None, "16×12 pixels, and the upright image 12×16"),
    "no object": (".npy", np.zeros((12, 16), dtype=np.uint8), None, "shows no object: expected a pixel of 1 or 255"),
    "no such object": (".npy", np.full((12, 16), 4), "object=1,3", "expected a pixel of 1, 3, and all are 4"),
    "a trimap": (".npy", np.arange(192).reshape(12, 16) % 3 + 1, None, "holds 1, 2, 3, which may mean anything"),
    "void": (".npy", np.where(np.eye(12, 16), 255, 1), None, "holds 1, 255, which"),
    "unknown values": (".npy", np.arange(192).reshape(12, 16), "object=1 background=0", "holds 2, 3, 4, 5, 6 and 185"),
    "color": (".png", Image.new("RGB", (16, 12), RED), None, "is in color: name the colors"),
    "numbers": (".npy", np.ones((12, 16), dtype=np.uint8), "object=#ff0000", "holds numbers, not colors"),
    "16 bit": (".png", Image.new("I;16", (16, 12)), "object=#ff0000", "holds numbers, not colors"),
    "no numbers": (".npy", np.full((12, 16), 0.5), None, "array of float64 [12, 16]"),
    "several masks": (".npy", np.ones((2, 12, 16), dtype=np.uint8), None, "[2, 12, 16]"),
    "nothing": (".npy", np.ones((0, 16), dtype=np.uint8), None, "[0, 16]"),
    "an archive": (".npy", two_arrays, None, "several arrays"),
    "objects": (".npy", np.array([[None]]), None, "cannot be read"),
    "damaged": (".png", b"\x89PNG", None, "cannot be read"),
    "CMYK": (".bmp", Image.new("CMYK", (16, 12)), None, "of mode CMYK"),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_misfits(kind: str, tmp_path: Path) -> None:
    """Each stands in the batch as a problem of the mask, beside the pixels of the photo and the other masks."""
    suffix, content, values, says = MISFITS[kind]
    folder(tmp_path, ("cat/a.jpg", "cat/b.jpg"), (16, 12))
    for path in (tmp_path / f"masks/cat/a{suffix}", tmp_path / f"masks/cat/b{suffix}"):
        if callable(content):
            content(path)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, Image.Image):
            content.save(path, format="TIFF" if content.mode == "CMYK" else None)
        else:
            np.save(path, content, allow_pickle=True)
    whole = np.ones((12, 16), dtype=np.uint8)
    (tmp_path / f"masks/cat/b{suffix}").unlink()
    colors = values is not None and "#" in values
    np.save(tmp_path / "masks/cat/b.npy", COLORS[whole] if colors else whole)
    batch = read(opened(tmp_path, values))
    assert batch.problems == {}
    assert list(batch.mask_problems) == [0]
    assert says in batch.mask_problems[0]
    assert ". " not in batch.mask_problems[0]
    assert "\n" not in batch.mask_problems[0]
    assert (batch.shows_class[0] == -1).all()
    assert (batch.shows_class[1] == 1).all()
    assert batch.array[0].any()


def test_a_missing_mask(tmp_path: Path) -> None:
    folder(tmp_path, ("cat/a.jpg", "cat/b.jpg"))
    Image.new("L", (16, 16), 1).save(tmp_path / "masks/cat/b.png")
    data = opened(tmp_path)
    assert data.missing_masks == ("cat/a.jpg",)
    assert data.subset([1]).missing_masks == ()
    batch = read(data)
    assert "a.png' does not exist, nor with the ending .bmp or .npy" in batch.mask_problems[0]
    assert list(batch.mask_problems) == [0]
    whole = replace(data, source=replace(data.source, missing=frozenset()))  # type: ignore[type-var]
    assert read(whole).mask_problems == batch.mask_problems


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_that_are_turned_upright(orientation: int, tmp_path: Path) -> None:
    """A mask drawn on the pixels as they are stored turns with the photo; one drawn on the upright photo stays."""
    folder(tmp_path)
    stored = np.zeros((12, 16), dtype=np.uint8)
    stored[2:5, 1:9] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "images/cat/a.png"
    (tmp_path / "images/cat/a.jpg").unlink()
    Image.fromarray(stored).save(path, exif=exif)
    upright = np.asarray(open_dataset(f"folder:{tmp_path / 'images'}").picture(0))[..., 0] == 255
    drawings = [upright] if orientation < 5 else [upright, stored == 255]
    for drawing in drawings:
        Image.fromarray(drawing).save(tmp_path / "masks/cat/a.png")
        data = opened(tmp_path)
        np.testing.assert_array_equal(data.mask(0), upright)
        assert read(data).mask_problems == {}
