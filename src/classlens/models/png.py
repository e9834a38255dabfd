"""PNG files with more text beside the picture than Pillow reads."""

from __future__ import annotations

import os
import struct
from pathlib import Path

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# PNG specification, section 11.3: text and color profile, which pictures are read without.
_LEFT_OUT = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")


def is_too_much_text(error: Exception) -> bool:
    """Whether Pillow refused a file for its limits on text, ``MAX_TEXT_CHUNK`` and ``MAX_TEXT_MEMORY``."""
    return isinstance(error, ValueError) and "MAX_TEXT_" in str(error)


def without_text(file: bytes | str | os.PathLike[str]) -> bytes:
    """A PNG file without its text and color profile; anything else, and what follows a broken chunk, as it is."""
    data = file if isinstance(file, bytes) else Path(file).read_bytes()
    if not data.startswith(_SIGNATURE):
        return data
    parts, start = [_SIGNATURE], len(_SIGNATURE)
    while start + 12 <= len(data):
        length, name = struct.unpack(">I4s", data[start : start + 8])
        stop = start + 12 + length
        if name not in _LEFT_OUT:
            parts.append(data[start:stop])
        start = stop
    return b"".join([*parts, data[start:]])
