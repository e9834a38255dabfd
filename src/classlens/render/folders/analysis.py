"""An analysis as a folder: tables for programs, and a summary for people."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from classlens.analysis.analyze import AnalyzeResult
from classlens.analysis.experiment import Experiment
from classlens.errors import ClasslensError, cause
from classlens.extras import require_extras_of
from classlens.models.files import require_file
from classlens.render.folders.result_folder import ANALYSIS, replacing
from classlens.render.markdown.analysis import summary
from classlens.text import csv_text

_LARGEST = 2**28
"""More bytes than any table has."""


def write_analysis(analysis: AnalyzeResult, out: Path, *, version: str) -> None:
    """Write ``tables/*.parquet`` and ``.csv``, ``summary.md`` and ``analysis.json``, all at once or nothing.

    ``write_analysis(classlens.analyze(["b32.zarr"]), Path("analysis"), version=classlens.__version__)``

    Replaces an earlier analysis with its figures. Raises ClasslensError for a folder that holds anything else.
    """
    with replacing(out, ANALYSIS) as folder:
        tables = folder / "tables"
        tables.mkdir()
        for name, table in analysis.all_tables.items():
            table.to_parquet(tables / f"{name}.parquet", index=False)
            write_csv(table, tables / f"{name}.csv")
        (folder / "summary.md").write_text(summary(analysis), encoding="utf-8")
        record = {
            "classlens": version,
            "stores": analysis.stores,
            "statistics": asdict(analysis.statistics),
            "tables": list(analysis.all_tables),
            "missing": [missing._asdict() for missing in analysis.missing],
        }
        (folder / "analysis.json").write_text(json.dumps(record, indent=1, allow_nan=False), encoding="utf-8")


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """A table for spreadsheets, too: no text in it is a formula."""
    texts = table.select_dtypes(exclude="number")
    table.assign(**{name: texts[name].map(csv_text) for name in texts}).to_csv(path, index=False)


def table_path(folder: Path, experiment: Experiment) -> Path | None:
    """File of the table of an experiment, Parquet before CSV; None where the folder has neither."""
    paths = [folder / "tables" / f"{experiment.name}.{ending}" for ending in ("parquet", "csv")]
    return next((path for path in paths if path.is_file()), None)


def read_table(path: Path, experiment: Experiment) -> pd.DataFrame:
    """A table that `classlens analyze` wrote; raises ClasslensError for any other file."""
    require_extras_of("figures")
    require_file(path, "table", largest=_LARGEST)
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except Exception as error:  # pyarrow and pandas do not bound what a damaged file raises
        raise ClasslensError(
            f"table {str(path)!r} cannot be read ({cause(error)}): run `classlens analyze` again"
        ) from None
    for column in ("model", *experiment.keys, "value"):
        if column not in table:
            raise ClasslensError(
                f"table {str(path)!r} has no column {column!r}: give a table of `classlens analyze` of this version"
            )
    for column in ("value", "low", "high", "block"):
        if column in table and not pd.api.types.is_numeric_dtype(table[column]):
            raise ClasslensError(
                f"table {str(path)!r} has a column {column!r} without numbers: give a table of `classlens analyze`"
            )
    return table
