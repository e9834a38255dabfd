"""Writes the record of a causal sweep, its pictures and the page's own code as one HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from classlens.errors import ClasslensError
from classlens.render.html.page import assembled, data_uri, json_element, write_page
from classlens.render.sweep_words import (
    agreement_words,
    direction_words,
    equal,
    equal_words,
    estimate_words,
    metric_name,
    metric_words,
    name_template,
    part_labels,
    prediction_words,
)
from classlens.text import visible

_DIGITS = 6


def write_sweep_page(
    record: Mapping[str, Any], pictures: Sequence[tuple[Image.Image, Image.Image]], path: Path
) -> None:
    """Write the record of a causal sweep as one self-contained page.

    ``write_sweep_page(record, [(clean.picture(0), corrupt.picture(0))], Path("report.html"))``

    ``pictures[i]`` holds the clean and the corrupt picture of ``record["images"][i]``, as the model sees them. The file
    loads nothing, and its policy forbids every request and every script but its own. Numbers have six digits. An
    existing file is replaced once the new one is complete. Raises ``ClasslensError`` where pictures and images differ
    in number, or a value is not finite.
    """
    record = visible(record)
    images = record["images"]
    if len(pictures) != len(images):
        raise ClasslensError(
            f"{len(pictures)} pairs of pictures were given for {len(images)} images of the record: "
            "give one pair an image"
        )
    if not images:
        raise ClasslensError("the record holds no images: expected at least one; sweep a pair first")
    subject = images[0]["label"] if len(images) == 1 else f"{len(images)} images"
    title = ", ".join(filter(None, (f"classlens sweep: {subject}", record["model"]["name"], estimate_words(record))))
    data = "\n".join(_data(record, pictures))
    packages = "classlens.render.html.lattice", __package__
    write_page(path, assembled(*packages, title=title, version=str(record["classlens"]), data=data))


def _data(record: Mapping[str, Any], pictures: Sequence[tuple[Image.Image, Image.Image]]) -> Iterator[str]:
    """Shared data first, then one element for each image, which the page parses when the image is chosen."""
    # A corrupt picture may belong to every image.
    sources: dict[str, int] = {}
    places = [[sources.setdefault(data_uri(picture), len(sources)) for picture in pair] for pair in pictures]
    shared = {key: record[key] for key in ("model", "over", "metric", "direction", "site", "blocks")} | {
        "metric_name": metric_name(record),
        "estimate": estimate_words(record),
        "direction_words": direction_words(record),
        "name_template": name_template(record),
        "images": [
            {"name": image["label"], "pictures": pair} for image, pair in zip(record["images"], places, strict=True)
        ],
        "pictures": list(sources),
    }
    yield json_element("record", shared, subject="the record")
    for number, image in enumerate(record["images"]):
        yield json_element(f"image-{number}", _shown(record, image), subject=f"image {image['name']!r}")


def _shown(record: Mapping[str, Any], image: Mapping[str, Any]) -> dict[str, Any]:
    """The data of an image that the page shows; of units, the largest effects alone."""
    whole = record["over"] != "units"
    return {
        "name": image["label"],
        "corrupt_name": image["corrupt_label"],
        "clean": image["clean"],
        "corrupt": image["corrupt"],
        "metric_words": metric_words(record, image),
        "predictions": {which: prediction_words(guess) for which, guess in image["predictions"].items()},
        "equal": f"{equal_words(record, image)}." if equal(image) else None,
        "agreement": None if image["agreement"] is None else f"{agreement_words(record, image)}.",
        "grid": image["grid"],
        "parts": image["parts"] if whole else [],
        "count": len(image["parts"]),
        "labels": part_labels(record, image) if whole else [],
        "effect": _rounded(image["effect"]) if whole else [],
        "patched": _rounded(image["patched"]) if whole else [],
        "largest": [
            {**part, "effect": _digits(part["effect"]), "patched": _digits(part["patched"])}
            for part in image["largest"]
        ],
    }


def _rounded(rows: Sequence[Sequence[float | None]]) -> list[list[float | None]]:
    return [[None if value is None else _digits(value) for value in row] for row in rows]


def _digits(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
