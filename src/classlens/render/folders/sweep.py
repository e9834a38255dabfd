"""Causal sweeps as a folder: the record, a table, figures and a page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from classlens.forward.sweep_parts import SWEEP_PARTS
from classlens.render.folders.analysis import write_csv
from classlens.render.folders.result_folder import SWEEP, replacing
from classlens.render.sweep_words import estimate_words

Pictures = Sequence[tuple[Image.Image, Image.Image]]


def write_sweep(record: dict[str, Any], pictures: Pictures, out: Path) -> None:
    """Write ``sweep.json``, ``sweep.csv``, figures and ``report.html``, all at once or nothing.

    ``pictures`` holds the clean and the corrupt picture of every image of the record, as the model sees them.
    """
    from classlens.render.figures.sweep import save_figures
    from classlens.render.html.sweep import write_sweep_page

    with replacing(out, SWEEP) as folder:
        (folder / "sweep.json").write_text(json.dumps(record, allow_nan=False), encoding="utf-8")
        write_csv(sweep_table(record), folder / "sweep.csv")
        save_figures(record, [clean for clean, _ in pictures], folder)
        write_sweep_page(record, pictures, folder / "report.html")


def sweep_table(record: dict[str, Any]) -> pd.DataFrame:
    """A row for each image, block and part; effects that are not defined are empty."""
    return pd.concat([pd.DataFrame(columns) for columns in _columns(record)], ignore_index=True)


def _columns(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    blocks, dim = record["blocks"], SWEEP_PARTS[record["over"]].dim
    for image in record["images"]:
        parts = image["parts"]
        rows = range(len(blocks) * len(parts))
        columns: dict[str, Any] = {
            "image": [image["name"]] * len(rows),
            "corrupt_image": image["corrupt_name"],
            "block": [block for block in blocks for _ in parts],
            dim: parts * len(blocks),
        }
        if dim == "token":
            first, width = len(record["model"]["prefix"]), image["grid"][1]
            columns["row"] = [(part - first) // width if part >= first else -1 for part in columns[dim]]
            columns["column"] = [(part - first) % width if part >= first else -1 for part in columns[dim]]
        yield {
            **columns,
            "method": estimate_words(record) or "patching",
            "clean": image["clean"],
            "corrupt": image["corrupt"],
            "patched": [value for row in image["patched"] for value in row],
            "effect": [float("nan") if value is None else value for row in image["effect"] for value in row],
        }
