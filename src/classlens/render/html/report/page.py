"""Puts an inspection record, its pictures and the page's own code into one HTML file."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from PIL import Image

from classlens.errors import ClasslensError

_LOGIT_DIGITS = 4
_MAP_DIGITS = 3
_PART_DIGITS = 6


def write_report(record: Mapping[str, Any], pictures: Sequence[Image.Image], path: Path) -> None:
    """Write an inspection record as one self-contained page.

    ``write_report(record, [trace.picture(0)], Path("report.html"))``

    ``pictures[i]``: what the model saw of ``record["images"][i]``, RGB at ``input_size``. The file opens without a
    server and loads nothing; its policy forbids every request and every script but its own. Token logits keep 4
    significant digits, explanation maps 3, attribution 6. An existing file is replaced once the new one is complete.
    Raises ``ClasslensError`` where pictures and images differ in number, or a value is not finite.
    """
    if len(pictures) != len(record["images"]):
        raise ClasslensError(
            f"{len(pictures)} pictures were given for {len(record['images'])} images of the record: "
            "give one picture an image"
        )
    if not pictures:
        raise ClasslensError("the record holds no images: expected at least one; inspect an image first")
    _write(path, _page(record, pictures))


def _page(record: Mapping[str, Any], pictures: Sequence[Image.Image]) -> str:
    style, script = _part("report.css"), _script()
    model = record["model"]["name"]
    images = record["images"]
    about = images[0]["name"] if len(images) == 1 else f"{len(images)} images"
    # Only this style and this script may act: a hostile name that slipped through as markup would still do nothing.
    own = f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    policy = f"default-src 'none'; img-src data:; {own}; base-uri 'none'; form-action 'none'"
    values = {
        "policy": html.escape(policy),
        "version": html.escape(str(record["classlens"])),
        "title": html.escape(f"classlens: {about}, {model}"),
        "style": style,
        "script": script,
        "data": "\n".join(_data(record, pictures)),
    }
    # One pass, so that braces inside a value are left alone.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], _part("template.html"))


def _data(record: Mapping[str, Any], pictures: Sequence[Image.Image]) -> Iterable[str]:
    """The frame first, then one element an image, which the page parses when the image is looked at."""
    frame = {key: record[key] for key in ("classlens", "model", "class_names", "sites", "top_k")}
    frame["images"] = [{"name": image["name"]} for image in record["images"]]
    frame["pictures"] = [_data_uri(picture) for picture in pictures]
    yield _json_element("record", frame, of="the record")
    for number, image in enumerate(record["images"]):
        yield _json_element(f"image-{number}", _compact(image), of=f"image {image['name']!r}")


def _compact(image: Mapping[str, Any]) -> dict[str, Any]:
    tokens = {
        site: {**found, "top_logit": _rounded(found["top_logit"], _LOGIT_DIGITS)}
        for site, found in image["tokens"].items()
    }
    explanation = {**image["explanation"], "values": _rounded(image["explanation"]["values"], _MAP_DIGITS)}
    attribution = image["attribution"] and _rounded(image["attribution"], _PART_DIGITS)
    return {**image, "tokens": tokens, "explanation": explanation, "attribution": attribution}


def _rounded(value: Any, digits: int) -> Any:
    """Numbers at any depth with so many significant digits."""
    if isinstance(value, Mapping):
        return {key: _rounded(inner, digits) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(inner, digits) for inner in value]
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() else short


def _json_element(name: str, value: Any, *, of: str) -> str:
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:
        raise ClasslensError(
            f"{of} holds a number that is not finite: expected finite values; check model and image"
        ) from None
    # Inside a script element the parser looks for "</script" and "<!--" alone; without "<" there is neither.
    return f'<script type="application/json" id="{name}">{text.replace("<", chr(92) + "u003c")}</script>'


def _data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _script() -> str:
    names = sorted(one.name for one in files(__package__).iterdir() if re.fullmatch(r"\d-\w+\.js", one.name))
    body = "\n".join(_part(name) for name in names)
    return f'(() => {{\n"use strict";\n{body}\n}})();'


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A file name that is no valid text can only reach the title; it is written as a reference.
        temporary.write_text(text, encoding="utf-8", errors="xmlcharrefreplace", newline="\n")
        temporary.replace(path)
    except OSError as error:
        raise ClasslensError(f"report {str(path)!r} cannot be written ({error.strerror}): give another path") from None
    finally:
        temporary.unlink(missing_ok=True)
