"""An atlas as a folder: pages that open from disk, with crops of photos, and tables for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from classlens.analysis.atlas.atlas import Atlas
from classlens.data.dataset import Dataset
from classlens.errors import ClasslensError
from classlens.render.atlas_crops import Crops, cut_crops
from classlens.render.atlas_record.choice import PageChoice
from classlens.render.atlas_record.records import PageRecords
from classlens.render.atlas_record.tokens import TokenPlace, token_place
from classlens.render.folders.result_folder import ATLAS, replacing
from classlens.render.html.atlas import write_atlas_pages

Report = Callable[[str, int, int], None]


class WrittenAtlas(NamedTuple):
    """Numbers of written pages and crops, and images whose photos are missing."""

    pages: int
    crops: int
    missing: tuple[str, ...]


def write_atlas(
    atlas: Atlas,
    pages: PageChoice,
    out: Path,
    *,
    dataset: Dataset | None,
    version: str,
    content: Int[np.ndarray, " image"] | None = None,
    tables: bool = False,
    report: Report = lambda text, done, total: None,
) -> WrittenAtlas:
    """Write ``index.html`` with pages of classes, heads, blocks and units, and ``atlas.json``, all at once or nothing.

    ``write_atlas(atlas, choose_pages(atlas.tables), Path("atlas"), dataset=None, version="0.1.0")``

    ``dataset`` holds the photos, from which crops are cut; None for pages without. ``content`` is that of the photos
    that were measured, by ``Dataset.content``. A photo that is gone, unreadable or another one leaves a placeholder;
    a data set of such photos alone is refused. ``tables`` writes the tables as Parquet files, too.
    """
    with replacing(out, ATLAS) as folder:
        crops = None if dataset is None else _crops(atlas, pages, dataset, content, report)
        count = 1 + len(pages.classes) + len(pages.blocks) + len(pages.heads) + len(pages.units)
        written = write_atlas_pages(
            atlas,
            pages,
            folder,
            version=version,
            crops=crops,
            notes=() if crops is None else tuple(_notes(crops)),
            report=lambda done: report("writing the pages", done, count),
        )
        if tables:
            atlas.write(folder / "tables")
        missing = () if crops is None else tuple(crops.missing)
        record = {
            "classlens": version,
            "store": atlas.store,
            "model": atlas.attrs["model"],
            "data": atlas.attrs["data"],
            "classes": list(pages.classes),
            "heads": [f"{block}.{head}" for block, head in pages.heads],
            "units": [f"{block}.{unit}" for block, unit in pages.units],
            "missing_photos": list(missing),
        }
        (folder / "atlas.json").write_text(json.dumps(record, indent=1, allow_nan=False), encoding="utf-8")
    return WrittenAtlas(written, 0 if crops is None else len(crops.files), missing)


def token_places(atlas: Atlas, pages: PageChoice) -> Mapping[TokenPlace, str]:
    """The image tokens that pages show, and the names of their images."""
    rows = (row for page in PageRecords(atlas, pages).values() for row in page.record.get("tokens", ()))
    return {token_place(row): row["image"] for row in rows}


def _crops(
    atlas: Atlas, pages: PageChoice, dataset: Dataset, content: Int[np.ndarray, " image"] | None, report: Report
) -> Crops:
    places = token_places(atlas, pages)
    crops = cut_crops(
        dataset,
        places,
        atlas.frames,
        atlas.grid,
        content=content,
        report=lambda done, total: report("cutting crops of photos", done, total),
    )
    if places and len(crops.missing) == len(set(places.values())):
        raise ClasslensError(
            f"data {dataset.spec!r} has none of the {len(crops.missing):,} photos that the pages show, such as "
            f"{crops.missing[0]!r}, or others of these names: give the place of the measured ones with --data, or "
            "--no-photos"
        )
    return crops


def _notes(crops: Crops) -> list[str]:
    notes = []
    if crops.missing:
        some = "1 photo is" if len(crops.missing) == 1 else f"{len(crops.missing):,} photos are"
        names = ", ".join(crops.missing[:3]) + (" …" if len(crops.missing) > 3 else "")
        notes.append(f"{some} gone, unreadable or changed since the measurement, and left out: {names}.")
    if crops.unplaced:
        notes.append(
            "The transform of the model leaves open which part of a photo the model saw: whole photos stand in the "
            "place of crops."
        )
    return notes
