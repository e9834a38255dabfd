"""A comparison as a folder: a page, tables for programs, and the facts of both stores."""

from __future__ import annotations

import json
from pathlib import Path

from classlens.analysis.comparison.compare import Comparison
from classlens.render.comparison_record import comparison_record, rows_of
from classlens.render.folders.analysis import write_csv
from classlens.render.folders.result_folder import COMPARISON, replacing
from classlens.render.html.explore.compare import compare_page
from classlens.render.html.page import write_page


def write_comparison(comparison: Comparison, out: Path, *, version: str) -> None:
    """Write ``compare.html``, a CSV file for each table and ``compare.json``, all at once or nothing.

    ``write_comparison(classlens.compare("a.zarr", "b.zarr"), Path("out"), version=classlens.__version__)``

    An earlier comparison is replaced. Raises ClasslensError for a folder that holds anything else.
    """
    page = compare_page(comparison_record(comparison), version=version)
    with replacing(out, COMPARISON) as folder:
        write_page(folder / "compare.html", page)
        for name, table in comparison.tables.items():
            write_csv(table, folder / f"{name}.csv")
        facts = {"classlens": version, **comparison.attrs, "summary": rows_of(comparison.summary)}
        (folder / COMPARISON.marker).write_text(json.dumps(facts, indent=1, allow_nan=False), encoding="utf-8")
