"""Writes an inspection record, its pictures and the page's own code as one HTML file."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from classlens.errors import ClasslensError
from classlens.render.html.page import assembled, data_uri, json_element, write_page
from classlens.text import visible

_PART_DIGITS = 6
_HEAD_DIGITS = 3
_INT16 = 32767


def write_report(record: Mapping[str, Any], pictures: Sequence[Image.Image], path: Path) -> None:
    """Write an inspection record as one self-contained page.

    ``write_report(record, [trace.picture(0)], Path("report.html"))``

    The file opens without a server. An existing one is replaced once the new one is complete. Arguments and errors are
    those of ``report_page``.
    """
    write_page(path, report_page(record, pictures))


def report_page(
    record: Mapping[str, Any],
    pictures: Sequence[Image.Image],
    *,
    left_out: str = "",
    before: Sequence[str] = (),
    after: Sequence[str] = (),
    data: Sequence[str] = (),
    site: bool = False,
) -> str:
    """The page of an inspection record, which loads nothing; its policy forbids every request and foreign script.

    ``pictures[i]`` is the model's input for ``record["images"][i]``, RGB at ``input_size``. Token logits and maps are
    rounded to 1/32,767 of the largest of their block or map, attribution to 6 digits. ``left_out`` are words on the
    page for what the record lacks. Packages ``before`` and ``after`` add style, scripts and sections of a ``site``,
    which read ``data``.
    Raises ``ClasslensError`` where pictures and images differ in number, or a value is not finite.
    """
    record = visible(record)
    images = record["images"]
    if len(pictures) != len(images):
        raise ClasslensError(
            f"{len(pictures)} pictures were given for {len(images)} images of the record: give one picture an image"
        )
    if not pictures:
        raise ClasslensError("the record holds no images: expected at least one; inspect an image first")
    subject = images[0]["label"] if len(images) == 1 else f"{len(images)} images"
    return assembled(
        *before,
        __package__,
        *after,
        title=f"classlens: {subject}, {record['model']['name']}",
        version=str(record["classlens"]),
        data="\n".join([*_data({**record, "left_out": left_out}, pictures), *data]),
        site=site,
    )


def _data(record: Mapping[str, Any], pictures: Sequence[Image.Image]) -> Iterable[str]:
    """Shared data first, then one element for each image, which the page parses when the image is chosen."""
    keys = ("classlens", "model", "class_names", "sites", "top_k", "edits", "left_out")
    shared = {key: record[key] for key in keys}
    shared["images"] = [{"name": image["label"]} for image in record["images"]]
    shared["pictures"] = [data_uri(picture) for picture in pictures]
    yield json_element("record", shared, subject="the record")
    for number, image in enumerate(record["images"]):
        yield json_element(f"image-{number}", _compact(image), subject=f"image {image['name']!r}")


def _compact(image: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of an image, with large arrays as whole numbers of two bytes."""
    classes = [
        {
            **{key: one[key] for key in ("target", "blocks", "largest")},
            "tokens": {
                site: {name: _packed(values) for name, values in facts.items()} for site, facts in one["tokens"].items()
            },
            "margin": one["margin"] and _rounded(one["margin"], _PART_DIGITS),
            "explanations": {
                name: {**maps, "values": _packed(maps["values"], axes=2)} for name, maps in one["explanations"].items()
            },
            "attribution": one["attribution"]
            and {
                **_rounded(
                    {key: part for key, part in one["attribution"].items() if key != "image_tokens"}, _PART_DIGITS
                ),
                "image_tokens": _packed(one["attribution"]["image_tokens"]),
            },
        }
        for one in (image, *image["others"])
    ]
    kept = {key: image[key] for key in ("target", "against", "predictions")}
    trajectory = image["trajectory"] and _rounded(image["trajectory"], _PART_DIGITS)
    attention = image["attention"] and {
        **image["attention"],
        **_rounded({key: image["attention"][key] for key in ("largest", "entropy", "distance")}, _HEAD_DIGITS),
    }
    norms = {site: {name: _packed(values) for name, values in facts.items()} for site, facts in image["norms"].items()}
    shown = {"name": image["label"], "norms": norms, "trajectory": trajectory, "attention": attention}
    return {**kept, **shown, "classes": classes}


def _packed(values: Any, axes: int = 1) -> Any:
    """An array as base64 of 16-bit numbers, each times the ``scale`` of its place on the first axes.

    Whole numbers stay as they are, in a list where 16 bits do not hold them.
    """
    numbers = np.asarray(values)
    whole = numbers.dtype.kind in "iu"
    if not np.isfinite(numbers).all() or (whole and np.abs(numbers).max(initial=0) > _INT16):
        return values  # what is not finite is refused when it is written
    rows = numbers.reshape(*numbers.shape[:axes], -1)
    largest = np.ones(rows.shape[:-1]) * _INT16 if whole else np.abs(rows).max(axis=-1)
    scale = np.array([float(f"{size / _INT16:.6g}") or 1.0 for size in largest.flat])
    data = np.round(rows.reshape(len(scale), -1) / scale[:, None]).astype("<i2").tobytes()
    packed = {"shape": list(numbers.shape), "base64": base64.b64encode(data).decode("ascii")}
    return packed if whole else {**packed, "scale": scale.tolist()}


def _rounded(value: Any, digits: int) -> Any:
    """A number, or all numbers of a nested structure, with so many significant digits."""
    if isinstance(value, Mapping):
        return {key: _rounded(inner, digits) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(inner, digits) for inner in value]
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() else rounded
