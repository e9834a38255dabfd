"""Explanations of images as a folder: overlays, methods side by side, animations over blocks, and the numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from classlens.explain.methods import METHODS
from classlens.lens.target import Target
from classlens.lens.trace import Trace
from classlens.present.figures.maps import frames, overlay, side_by_side
from classlens.present.figures.style import save

# Small pictures are shown larger, every pixel a square.
_LEAST = 448
_FRAME = 400  # milliseconds


def write_explanations(
    trace: Trace,
    target: Target,
    methods: Sequence[str],
    folder: Path,
    *,
    first: int = 1,
    contour: bool = False,
    animate: bool = False,
    **options: Any,
) -> list[dict[str, Any]]:
    """Write the pictures of every image of a trace, numbered from ``first``; returns the record of each.

        write_explanations(lens.trace(["cat.png"]), "cat", ["class_gradient", "rollout"], Path("out"))

    ``01-class_gradient.png``: the map over the picture, at the picture's resolution. ``01-methods.png``: all methods
    side by side. ``01-class_gradient.webp``, with ``animate``: block after block, on one scale, for methods that tell
    blocks apart. ``options`` go to the methods that take them.
    """
    found = {
        method: trace.explain(
            target, method=method, **{k: v for k, v in options.items() if k in METHODS[method].options}
        )
        for method in methods
    }
    rows, columns = trace.recording.tokens.grid
    records = []
    for image, name in enumerate(trace.names):
        picture = _large(trace.picture(image))
        number = f"{first + image:02d}"
        maps = {}
        record: dict[str, Any] = {"name": name, "maps": {}}
        for method, values in found.items():
            own, signed = values[image], METHODS[method].signed
            grid = own.sum([dim for dim in own.dims if dim != "token"]).values.reshape(rows, columns)
            maps[method] = (grid, signed)
            record["target"] = str(values.target_name.values[image])
            record["maps"][method] = np.asarray(grid, dtype=float).round(6).tolist()
            overlay(picture, grid, signed=signed).save(folder / f"{number}-{method}.png")
            if animate and "block" in own.dims:
                blocks = own.sum([dim for dim in own.dims if dim == "head"]).values.reshape(-1, rows, columns)
                pictures = list(frames(picture, blocks, signed=signed))
                pictures[0].save(
                    folder / f"{number}-{method}.webp",
                    save_all=True,
                    append_images=pictures[1:],
                    duration=_FRAME,
                    loop=0,
                    lossless=True,
                )
        title = f"{record['target']} in {Path(name).name}"
        save(side_by_side(picture, maps, title, contour=contour), folder / f"{number}-methods.png")
        records.append(record)
    return records


def _large(picture: Image.Image) -> Image.Image:
    times = -(-_LEAST // min(picture.size))
    if times <= 1:
        return picture
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)


def explanation_json(records: Sequence[dict[str, Any]], *, model: str, version: str) -> str:
    """The numbers behind the pictures: of every image and method, the map row by row."""
    return json.dumps({"classlens": version, "model": model, "images": list(records)}, allow_nan=False)
