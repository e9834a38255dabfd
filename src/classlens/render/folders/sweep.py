"""Causal sweeps as a folder: the record, a table, figures and a page."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from classlens.forward.sweep_parts import SWEEP_PARTS
from classlens.render.folders.result_folder import SWEEP, replacing
from classlens.render.sweep_words import estimate_words
from classlens.text import csv_text

Pictures = Sequence[tuple[Image.Image, Image.Image]]


def write_sweep(record: dict[str, Any], pictures: Pictures, out: Path) -> None:
    """Write ``sweep.json``, ``sweep.csv``, figures and ``report.html``, all at once or nothing.

    ``pictures`` holds the clean and the corrupt picture of every image of the record, as the model sees them.
    """
    from classlens.render.figures.sweep import save_figures
    from classlens.render.html.sweep import write_sweep_page

    with replacing(out, SWEEP) as folder:
        (folder / "sweep.json").write_text(json.dumps(record, allow_nan=False), encoding="utf-8")
        rows = list(_rows(record))
        with (folder / "sweep.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            table.writeheader()
            table.writerows({column: csv_text(value) for column, value in row.items()} for row in rows)
        save_figures(record, [clean for clean, _ in pictures], folder)
        write_sweep_page(record, pictures, folder / "report.html")


def _rows(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each image, block and part; effects that are not defined are empty."""
    dim = SWEEP_PARTS[record["over"]].dim
    method = estimate_words(record) or "patching"
    for image in record["images"]:
        for number, block in enumerate(record["blocks"]):
            for column, part in enumerate(image["parts"]):
                grid = {}
                if dim == "token":
                    patch = part - len(record["model"]["prefix"])
                    row, position = divmod(patch, image["grid"][1]) if patch >= 0 else (-1, -1)
                    grid = {"row": row, "column": position}
                yield {
                    "image": image["name"],
                    "corrupt_image": image["corrupt_name"],
                    "block": block,
                    dim: part,
                    **grid,
                    "method": method,
                    "clean": image["clean"],
                    "corrupt": image["corrupt"],
                    "patched": image["patched"][number][column],
                    "effect": image["effect"][number][column],
                }
