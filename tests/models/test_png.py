"""PNG files with long texts: the picture is read without them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from classlens.models.images import open_bytes, open_picture
from tests.data.pictures import picture
from tests.refusals import refused


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


LONG = zlib.compress(b"x" * (PngImagePlugin.MAX_TEXT_CHUNK + 1))
CHUNKS = {
    "compressed": chunk(b"zTXt", b"Comment\0\0" + LONG),
    "international": chunk(b"iTXt", b"Comment\0\1\0\0\0" + LONG),
    "profile": chunk(b"iCCP", b"mine\0\0" + LONG),
    "many": chunk(b"tEXt", b"Comment\0" + b"x" * PngImagePlugin.MAX_TEXT_CHUNK) * 65,
}


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("kind", list(CHUNKS))
def test_long_text_is_left_out(kind: str, place: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture(1).save(path)
    plain = path.read_bytes()
    at = plain.index(b"IDAT" if place == "before" else b"IEND") - 4
    path.write_bytes(plain[:at] + CHUNKS[kind] + plain[at:])
    with pytest.raises(ValueError, match="MAX_TEXT"), Image.open(path) as image:
        image.load()
    for read in (open_picture(path), open_bytes(path.read_bytes(), "a.png")):
        np.testing.assert_array_equal(read.image, picture(1))


def test_damage_beside_long_text(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture(1, (200, 200)).save(path)
    plain = path.read_bytes()
    at = plain.index(b"IDAT") - 4
    path.write_bytes((plain[:at] + CHUNKS["compressed"] + plain[at:])[:-2000])
    refused(lambda: open_picture(path), "a.png", "cannot be read (")
