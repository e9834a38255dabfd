"""An analysis as a folder: tables for programs, a summary for people, and figures drawn from the tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from classlens.analysis.analyze import Analysis, require_libraries
from classlens.analysis.experiment import Experiment
from classlens.analysis.registry import EXPERIMENTS, select_experiments
from classlens.errors import ClasslensError, cause
from classlens.render.folder import ANALYSIS, replacing
from classlens.render.summary import summary

FORMATS = ("png", "svg")


def write_analysis(analysis: Analysis, out: Path, *, version: str) -> None:
    """Write ``tables/*.parquet`` and ``.csv``, ``summary.md`` and ``analysis.json``, all at once or nothing.

        write_analysis(classlens.analyze(["b32.zarr"]), Path("analysis"), version=classlens.__version__)

    An earlier analysis there is replaced, its figures too. Raises ClasslensError for a folder of other things.
    """
    with replacing(out, ANALYSIS) as folder:
        tables = folder / "tables"
        tables.mkdir()
        for name, table in analysis.tables.items():
            table.to_parquet(tables / f"{name}.parquet", index=False)
            table.to_csv(tables / f"{name}.csv", index=False)
        (folder / "summary.md").write_text(summary(analysis), encoding="utf-8")
        record = {
            "classlens": version,
            "stores": analysis.stores,
            "statistics": asdict(analysis.statistics),
            "tables": list(analysis.tables),
            "missing": [one._asdict() for one in analysis.missing],
        }
        (folder / "analysis.json").write_text(json.dumps(record, indent=1, allow_nan=False), encoding="utf-8")


def write_figures(
    folder: Path,
    *,
    experiments: Collection[str] | None = None,
    formats: Sequence[str] = FORMATS,
    out: Path | None = None,
    report: Callable[[int, int], None] = lambda *_: None,
) -> list[Path]:
    """Draw the figures of all tables of an analysis, into its folder ``figures`` or ``out``; returns the paths.

        write_figures(Path("analysis"), formats=["svg"])

    A table is enough: ``tables/evolution.parquet``, or ``.csv``, alone gives the figures of ``evolution``. Raises
    ClasslensError for a folder without tables, a table that lacks columns, and unknown experiments or formats.
    """
    from classlens.render.figures.charts import draw
    from classlens.render.figures.style import save

    for one in formats:
        if one not in FORMATS:
            raise ClasslensError(f"format {one!r} is not known: give png, svg or both")
    tables = [
        (experiment, table) for experiment in select_experiments(experiments) if (table := _table(folder, experiment))
    ]
    if not tables:
        raise ClasslensError(
            f"folder {str(folder)!r} has no tables of such experiments: give what `classlens analyze --out` wrote"
        )
    out = folder / "figures" if out is None else out
    paths: list[Path] = []
    try:
        for number, (experiment, path) in enumerate(tables):
            report(number, len(tables))
            table = read_table(path, experiment)
            for chart in experiment.charts:
                figure = draw(chart, table, experiment.title)
                if figure is None:
                    continue
                out.mkdir(parents=True, exist_ok=True)
                for one in formats:
                    paths.append(out / f"{figure_name(experiment.name, chart.suffix)}.{one}")
                    save(figure, paths[-1])
    except OSError as error:
        raise ClasslensError(
            f"figures cannot be written to {str(out)!r} ({cause(error)}): give another --out"
        ) from None
    report(len(tables), len(tables))
    return paths


def figure_name(experiment: str, suffix: str) -> str:
    return f"{experiment}_{suffix}" if suffix else experiment


def _table(folder: Path, experiment: Experiment) -> Path | None:
    """Where the table of an experiment lies, Parquet rather than CSV."""
    places = [folder / "tables" / f"{experiment.name}.{ending}" for ending in ("parquet", "csv")]
    return next((place for place in places if place.is_file()), None)


def read_table(path: Path, experiment: Experiment) -> pd.DataFrame:
    """A table that `classlens analyze` wrote; raises ClasslensError for another one."""
    require_libraries()
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError) as error:  # pyarrow's and pandas' own are among them
        raise ClasslensError(
            f"table {str(path)!r} cannot be read ({cause(error)}): run `classlens analyze` again"
        ) from None
    for column in ("model", *experiment.keys, "value"):
        if column not in table:
            raise ClasslensError(
                f"table {str(path)!r} has no column {column!r}: give a table of `classlens analyze` of this version"
            )
    return table


def known_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """All tables of an analysis by their experiment."""
    found = {}
    for experiment in EXPERIMENTS.values():
        path = _table(folder, experiment)
        if path is not None:
            found[experiment.name] = read_table(path, experiment)
    return found
