"""Pages as one file each: a template, the style and scripts that pages share and their own, and data as JSON."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

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


_PARTS = ("bar.html", "section.html")


def assembled(*packages: str, title: str, version: str, data: str, site: bool = False) -> str:
    """The page of packages that hold style sheets and scripts, and one ``template.html``; ``data``: elements of JSON.

    Style and scripts of ``render/html/shared`` come first, then those of the packages in their order. A package's
    ``bar.html`` stands at the top of the page, its ``section.html`` below the sections of the template. The policy of
    the page forbids every request, and every style and script but these, so that a hostile name that became markup
    would still do nothing. A page of a ``site`` may ask the server that it comes from.
    """
    closing = "" if site else " The page is complete in itself: it loads nothing."
    # A browser asks a server for an icon, unless the page has one.
    icon = '<link rel="icon" href="data:,">\n' if site else ""
    values = {"version": html_text(version), "title": html_text(title), "data": data, "closing": closing, "icon": icon}
    return _filled(_code(packages, site).template, {**_code(packages, site)._asdict(), **values})


class _Code(NamedTuple):
    """Style and script that the pages of the same packages share."""

    template: str
    policy: str
    style: str
    script: str
    bar: str
    sections: str


@cache
def _code(packages: tuple[str, ...], site: bool) -> _Code:
    folders = [files("classlens.render.html").joinpath("shared"), *map(files, packages)]
    style = _filled("\n".join(text for folder in folders for text in _texts(folder, r"\w+\.css")), _COLORS)
    scripts = "\n".join(text for folder in folders for text in _texts(folder, r"\d-\w+\.js"))
    script = f'(() => {{\n"use strict";\n{scripts}\n}})();'
    sources = f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    addresses = "img-src 'self' data: blob:; connect-src 'self'" if site else "img-src data:"
    policy = html_text(f"default-src 'none'; {addresses}; {sources}; base-uri 'none'; form-action 'none'")
    (template,) = (text for folder in folders for text in _texts(folder, "template.html"))
    template = template.replace("{{head}}", folders[0].joinpath("head.html").read_text(encoding="utf-8"))
    bar, sections = ("\n".join(text for folder in folders for text in _texts(folder, name)) for name in _PARTS)
    return _Code(template, policy, style, script, bar, sections)


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
