"""An inspection as a folder: the record, figures and the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classlens.render.folders.result_folder import INSPECTION, replacing

if TYPE_CHECKING:
    from PIL.Image import Image


def write_inspection(record: Mapping[str, Any], pictures: Sequence[Image], out: Path) -> Path:
    """Write ``inspect.json``, the figures and ``report.html``; returns the path of the page.

    ``write_inspection(inspection.record, inspection.pictures, Path("report"))``

    All files appear at once or none does; an earlier result is replaced.
    """
    from classlens.render.figures.inspection import save_figures
    from classlens.render.html.report import write_report

    with replacing(out, INSPECTION) as folder:
        # Weights of every head are packed for the page; programs take them from `trace.attention`.
        images = [{key: value for key, value in image.items() if key != "attention"} for image in record["images"]]
        text = json.dumps({**record, "images": images}, allow_nan=False)
        (folder / "inspect.json").write_text(text, encoding="utf-8")
        save_figures(record, pictures, folder)
        write_report(record, pictures, folder / "report.html")
    return out / "report.html"
