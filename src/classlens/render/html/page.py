"""Pages as one file each: a template, the style and scripts that pages share and their own, and data as JSON."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from PIL import Image

from classlens import palette
from classlens.errors import ClasslensError
from classlens.text import html_text

_COLORS: Mapping[str, str] = {
    "cls": palette.CLS,
    "image": palette.IMAGE_TOKENS,
    "supports": palette.SUPPORTS,
    "opposes": palette.OPPOSES,
    "opacity": str(palette.OPACITY),
}
"""Colors of the figures that the style sheets use too."""


def assembled(package: str, *, title: str, version: str, data: str) -> str:
    """The page of a package that holds ``template.html``, a style sheet and scripts; ``data`` is elements of JSON.

    Style and scripts of ``render/html/shared`` come first. The policy of the page forbids every request, and every
    style and script but these, so that a hostile name that became markup would still do nothing.
    """
    folders = files("classlens.render.html").joinpath("shared"), files(package)
    style = _filled("\n".join(text for folder in folders for text in _texts(folder, r"\w+\.css")), _COLORS)
    scripts = "\n".join(text for folder in folders for text in _texts(folder, r"\d-\w+\.js"))
    script = f'(() => {{\n"use strict";\n{scripts}\n}})();'
    sources = f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    values = {
        "policy": html_text(f"default-src 'none'; img-src data:; {sources}; base-uri 'none'; form-action 'none'"),
        "version": html_text(version),
        "title": html_text(title),
        "style": style,
        "script": script,
        "data": data,
    }
    return _filled(folders[1].joinpath("template.html").read_text(encoding="utf-8"), values)


def json_element(name: str, value: Any, *, subject: str) -> str:
    """An element that holds a value as JSON; raises ClasslensError for a subject with a number that is not finite."""
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:
        raise ClasslensError(
            f"{subject} holds a number that is not finite: expected finite values; check model and image"
        ) from None
    # Within a script element only "</script" and "<!--" are markup, and both need "<".
    return f'<script type="application/json" id="{name}">{text.replace("<", chr(92) + "u003c")}</script>'


def data_uri(picture: Image.Image) -> str:
    """A picture as an address that holds it."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def write_page(path: Path, text: str) -> None:
    """Write a page; an existing file is replaced once the new one is complete."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A file name with invalid characters can only reach the title, where they are written as references.
        temporary.write_text(text, encoding="utf-8", errors="xmlcharrefreplace", newline="\n")
        temporary.replace(path)
    except OSError as error:
        raise ClasslensError(f"report {str(path)!r} cannot be written ({error.strerror}): give another path") from None
    finally:
        temporary.unlink(missing_ok=True)


def _filled(text: str, values: Mapping[str, str]) -> str:
    """The text with every ``{{name}}`` replaced by its value; a value may hold braces of its own."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], text)


def _texts(folder: Traversable, name: str) -> Iterator[str]:
    """Files of a folder whose names match a pattern, in the order of their names."""
    found = sorted((file for file in folder.iterdir() if re.fullmatch(name, file.name)), key=lambda file: file.name)
    yield from (file.read_text(encoding="utf-8") for file in found)


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
