"""Figures of an analysis, each drawn from its table alone."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from classlens.analysis.registry import EXPERIMENTS
from classlens.core.arguments import AnyPath
from classlens.core.path_arguments import checked_with_home
from classlens.errors import ClasslensError, cause, unknown
from classlens.render.figures.charts import draw
from classlens.render.figures.style import save
from classlens.render.folders.analysis import read_table, table_path

FORMATS = ("png", "svg")


@checked_with_home
def figures(
    folder: AnyPath,
    *,
    out: AnyPath | None = None,
    experiments: str | Collection[str] = "all",
    formats: str | Collection[str] = FORMATS,
    report: Callable[[int, int], None] = lambda *_: None,
) -> list[Path]:
    """Draw the figures of an analysis, each from its table alone.

    One table is enough: ``tables/evolution.parquet``, or ``.csv``, gives the figures of ``evolution``.

    Args:
        folder: the folder that ``classlens analyze --out`` wrote.
        out: folder for the figures; ``figures`` within ``folder`` when left out.
        experiments: names in ``classlens.EXPERIMENTS``, or ``"all"``.
        formats: ``"png"``, ``"svg"`` or both.
        report: called with the tables drawn and the tables of all.

    Returns:
        Paths of the figures, in the order of the experiments.

    Raises:
        ClasslensError: no table of such experiments, a table without the columns of its experiment, an unknown
            experiment or format, or a folder that cannot be written.

    Examples:
        >>> import classlens
        >>> import pandas as pd
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> rows = [("vit", "clean", "image", block, 0.2 + 0.1 * block) for block in range(4)]
        >>> table = pd.DataFrame(rows, columns=["model", "condition", "tokens", "block", "value"])
        >>> with TemporaryDirectory() as folder:
        ...     Path(folder, "tables").mkdir()
        ...     table.to_csv(f"{folder}/tables/change_rate.csv", index=False)
        ...     [path.name for path in classlens.figures(folder)]
        ['change_rate.png', 'change_rate.svg']
    """
    formats = [formats] if isinstance(formats, str) else list(formats)
    for name in formats:
        if name not in FORMATS:
            raise unknown("format", name, FORMATS, give="some of")
    if not formats:
        raise ClasslensError(f"no formats were given: give some of {', '.join(FORMATS)}")
    folder = Path(folder)
    chosen = [EXPERIMENTS[name] for name in EXPERIMENTS.select(experiments)]
    tables = [(experiment, path) for experiment in chosen if (path := table_path(folder, experiment))]
    if not tables:
        raise ClasslensError(
            f"folder {str(folder)!r} has no tables of such experiments: give what `classlens analyze --out` wrote"
        )
    out = folder / "figures" if out is None else Path(out)
    paths: list[Path] = []
    try:
        for number, (experiment, path) in enumerate(tables):
            report(number, len(tables))
            table = read_table(path, experiment)
            for chart in experiment.charts:
                try:
                    figure = draw(chart, table, experiment.label, experiment.labels)
                except (KeyError, IndexError, TypeError, ValueError) as error:  # values of another form
                    raise ClasslensError(
                        f"table {str(path)!r} cannot be drawn ({cause(error)}): run `classlens analyze` again"
                    ) from None
                if figure is None:
                    continue
                out.mkdir(parents=True, exist_ok=True)
                for ending in formats:
                    paths.append(out / f"{chart.file_stem(experiment.name)}.{ending}")
                    save(figure, paths[-1])
    except OSError as error:
        raise ClasslensError(
            f"figures cannot be written to {str(out)!r} ({cause(error)}): give another --out"
        ) from None
    report(len(tables), len(tables))
    return paths
